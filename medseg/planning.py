"""From a data set's fingerprint, a memory and a time to a whole experiment, each choice with its numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml

from medseg.config import validate
from medseg.data.fingerprint import Fingerprint
from medseg.errors import ConfigError
from medseg.experiment import ExperimentConfig

_LEAST_STEPS = 500  # of a run worth the name; a schedule over fewer learns little (README, Measured)
_COARSE = 3.0  # times the finest spacing: an axis beyond it is resampled to its finest tenth (Isensee et al. 2021)
_UNEVEN = 2.0  # times the finest spacing: while an axis is coarser than that, the network halves the others alone
_LEAST_EDGE = 4  # voxels of the coarsest stage along each axis
_MOST_STAGES = {2: 7, 3: 6}
_MOST_EDGE = {2: 512, 3: 160}
_MOST_CHANNELS = {2: 512, 3: 320}
_BATCHES = (2, 4)
_ROOM = 0.9  # of the memory that may be used
_TRIES = 6
_LEAST_SEEN = 0.25  # of a case in a patch: with less around it, a voxel's place is hard to tell
_LEAST_WIDTH = 16.0  # voxels across a label on a coarser grid
_WORTH_IT = 1.2  # times coarser; less changes nothing
_KEPT = ": none is resampled"


class Cost(NamedTuple):
    """What a training step needs, as it was measured on the device."""

    step_s: float
    peak_bytes: int


Measure = Callable[[ExperimentConfig], Cost]


class Shape(NamedTuple):
    """Patch and batch, and the network that fits the patch."""

    patch: tuple[int, ...]
    batch: int
    strides: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Goal:
    """What the plan is for."""

    name: str
    manifest: str
    fold: int | None
    minutes: float
    memory_bytes: int
    device: Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Plan:
    """An experiment as a mapping, why each of its keys is as it is (by dotted key), and a checked version of it."""

    content: Mapping[str, Any]
    reasons: Mapping[str, str]
    experiment: ExperimentConfig

    def text(self, head: Sequence[str]) -> str:
        """The YAML file, each reason as a comment above its key."""
        lines = [f"# {line}" for paragraph in head for line in textwrap.wrap(paragraph, 117)]
        return "\n".join([*lines, *_written(self.content, self.reasons, "", 0)]) + "\n"


def plan(found: Fingerprint, goal: Goal, measure: Measure) -> Plan:
    """A U-Net for these data. Raises ConfigError where not even the smallest patch fits the memory."""
    reasons: dict[str, str] = {}
    preprocessing, spacing = _preprocessing(found, reasons)
    content: dict[str, Any] = {
        "schema_version": 1,
        "name": goal.name,
        "data": {"manifest": goal.manifest, "fold": goal.fold},
        "preprocessing": preprocessing,
    }
    extent = np.median(found.extents, axis=0) / spacing
    shape, cost, tried = _fitted(content, extent, spacing, goal, measure)
    coarser = _coarser(found, extent, spacing, shape)
    if coarser > _WORTH_IT:
        told = reasons["preprocessing.spacing_mm"].partition(_KEPT)[0]
        reasons["preprocessing.spacing_mm"] = (
            f"{told}; there, memory and time leave a patch of {_by(shape.patch)} voxels, {_seen(shape, extent):.0%} of "
            f"a case ({'; '.join(tried)}): this grid is {coarser:.2g} times coarser, which the smallest label bears"
        )
        spacing, extent = spacing * coarser, extent / coarser
        preprocessing["spacing_mm"] = [float(f"{value:.4g}") for value in spacing]
        shape, cost, tried = _fitted(content, extent, spacing, goal, measure)
    content = _with_shape(content, shape, goal)
    content["augmentation"] = _augmentation(found, reasons)
    _explain(reasons, found, goal, shape, cost, tried, extent)
    return Plan(content, reasons, validate(ExperimentConfig, content, "plan"))


def _preprocessing(found: Fingerprint, reasons: dict[str, str]) -> tuple[dict[str, Any], np.ndarray]:
    """The preprocessing, and the spacing that the network will see."""
    content: dict[str, Any] = {}
    if found.dims == 2:
        content["orientation"] = None
        reasons["preprocessing.orientation"] = "pictures keep their axes"
    spacing = np.median(found.spacings, axis=0)
    low, high = found.spacings.min(axis=0), found.spacings.max(axis=0)
    if np.allclose(low, high, rtol=0.01):
        reasons["preprocessing.spacing_mm"] = f"all {len(found.cases)} cases have {_by(spacing)}{_KEPT}"
        content["spacing_mm"] = None
    else:
        told = f"median of {len(found.cases)} cases, which have {_by(low)} to {_by(high)}"
        if spacing.max() / spacing.min() > _COARSE:
            axis = int(spacing.argmax())
            spacing[axis] = max(np.percentile(found.spacings[:, axis], 10), np.delete(spacing, axis).max())
            told += f"; axis {axis} is coarse, so that its finest tenth decides"
        content["spacing_mm"] = [float(f"{value:.4g}") for value in spacing]
        reasons["preprocessing.spacing_mm"] = told
    content["intensity"], reasons["preprocessing.intensity"] = _intensity(found)
    return content, spacing


def _coarser(found: Fingerprint, extent: np.ndarray, spacing: np.ndarray, shape: Shape) -> float:
    """How much coarser the grid may be, so that a patch sees a quarter of a case and the labels keep their shape; or 1.

    A label's width is the diameter of a ball, or disc, of its median size.
    """
    seen = _seen(shape, extent)
    if seen >= _LEAST_SEEN:
        return 1.0
    sizes = np.array([case.voxels for case in found.cases]) * np.prod(found.spacings, axis=1, keepdims=True)
    widths = [_width(float(np.median(of[of > 0])), found.dims) for of in sizes.T if (of > 0).any()]
    allowed = min(widths, default=0.0) / float(spacing.max()) / _LEAST_WIDTH
    return max(1.0, min(allowed, (_LEAST_SEEN / seen) ** (1 / found.dims)))


def _width(size: float, dims: int) -> float:
    return (6 * size / math.pi) ** (1 / 3) if dims == 3 else (4 * size / math.pi) ** 0.5


def _seen(shape: Shape, extent: np.ndarray) -> float:
    """The share of a median case that a patch holds."""
    return float(np.prod(np.minimum(np.array(shape.patch) / extent, 1)))


def _intensity(found: Fingerprint) -> tuple[list[dict[str, Any]], str]:
    """CT by a window on its own values, all else by each image's mean and deviation."""
    steps: list[dict[str, Any]] = []
    told = []
    for index, name in enumerate(found.channels):
        only = {} if len(found.channels) == 1 else {"channels": [index]}
        zeros = float(np.median([case.zero_share[index] for case in found.cases]))
        if name.upper() == "CT":
            low, _, high = found.percentiles[index]
            steps.append({"name": "window", "low": round(low), "high": round(max(high, low + 1)), **only})
            told.append(f"{name}: values inside labels are {low:.0f} to {high:.0f} HU (0.5th to 99.5th percentile)")
        elif zeros > 0.2 and found.dims == 3:
            steps.append({"name": "z_score", "nonzero": True, **only})
            told.append(f"{name}: {zeros:.0%} of the voxels are 0, which is no tissue, and count nowhere")
        else:
            steps.append({"name": "z_score", **only})
            told.append(f"{name}: the unit differs between images, so that each has its own mean and deviation")
    return steps, "; ".join(told)


def _fitted(
    content: Mapping[str, Any], extent: np.ndarray, spacing: np.ndarray, goal: Goal, measure: Measure
) -> tuple[Shape, Cost, list[str]]:
    """The largest patch that memory and time allow, then the larger batch if they still do; each was measured."""
    tried = list[str]()
    shape = shape_for(np.minimum(extent, _MOST_EDGE[len(extent)]), spacing, _BATCHES[0])
    for _ in range(_TRIES):
        cost = measure(validate(ExperimentConfig, _with_shape(content, shape, goal), "plan"))
        tried.append(_told(shape, cost))
        excess = max(cost.peak_bytes / (goal.memory_bytes * _ROOM), _LEAST_STEPS / _steps(cost, goal))
        smaller = _shrunk(shape, spacing, excess)
        if excess <= 1 or smaller.patch == shape.patch:
            break
        shape = smaller
    if cost.peak_bytes > goal.memory_bytes * _ROOM:
        raise ConfigError(
            f"--memory: {goal.memory_bytes / 1e9:.1f} GB hold no training step that is worth it ({'; '.join(tried)}); "
            "give more"
        )
    fitting = shape, cost
    for batch in _BATCHES[1:]:
        larger = fitting[0]._replace(batch=batch)
        cost = measure(validate(ExperimentConfig, _with_shape(content, larger, goal), "plan"))
        tried.append(_told(larger, cost))
        if cost.peak_bytes <= goal.memory_bytes * _ROOM and _steps(cost, goal) >= _LEAST_STEPS:
            fitting = larger, cost
    return *fitting, tried


def shape_for(edges: np.ndarray, spacing: np.ndarray, batch: int, rounded: Callable[[float], int] = math.ceil) -> Shape:
    """Stages that halve an axis while its coarsest stage keeps four voxels, and the patch next above `edges`."""
    sizes, steps, strides = np.maximum(edges, 2 * _LEAST_EDGE), np.array(spacing, dtype=float), list[tuple[int, ...]]()
    while len(strides) + 1 < _MOST_STAGES[len(edges)]:
        able = sizes / 2 >= _LEAST_EDGE
        if not able.any():
            break
        near = steps <= steps[able].min() * _UNEVEN
        stride = np.where(able & near, 2, 1)
        strides.append(tuple(stride.tolist()))
        sizes, steps = sizes / stride, steps * stride
    divisor = np.prod(strides, axis=0)
    patch = tuple(int(rounded(round(size / step, 6)) * step) for size, step in zip(edges, divisor, strict=True))
    return Shape(
        tuple(max(size, 2 * int(step)) for size, step in zip(patch, divisor, strict=True)), batch, tuple(strides)
    )


def _shrunk(shape: Shape, spacing: np.ndarray, excess: float) -> Shape:
    """A patch of about 1 / excess the voxels, the same one where none is smaller: what covers most gives way first."""
    goal, edges = math.prod(shape.patch) / min(max(excess, 1.0), 8.0), list(shape.patch)
    smaller = shape
    while math.prod(smaller.patch) > goal:
        able = [axis for axis, edge in enumerate(edges) if edge > 4 * _LEAST_EDGE]
        if not able:
            break
        axis = max(able, key=lambda one: edges[one] * spacing[one])
        edges[axis] -= max(1, edges[axis] // 16)
        smaller = shape_for(np.array(edges, dtype=float), spacing, shape.batch, math.floor)
    return smaller


def _with_shape(content: Mapping[str, Any], shape: Shape, goal: Goal) -> dict[str, Any]:
    """The experiment with patch, network and training."""
    dims = len(shape.patch)
    width = 16 if goal.device == "cpu" else 32
    channels = [min(width * 2**stage, _MOST_CHANNELS[dims]) for stage in range(len(shape.strides) + 1)]
    network: dict[str, Any] = {"name": "unet", "spatial_dims": dims, "channels": channels}
    if any(len(set(stride)) > 1 for stride in shape.strides):
        network["strides"] = [list(stride) for stride in shape.strides]
    return {
        **content,
        "patch": {"size": list(shape.patch)},
        "network": network,
        "loss": {"name": "dice_ce"},
        "training": {"max_minutes": goal.minutes, "batch_size": shape.batch},
    }


def _augmentation(found: Fingerprint, reasons: dict[str, str]) -> list[dict[str, Any]]:
    reasons["augmentation"] = (
        "the changes that the shipped configs were measured with; no flips, since the two sides of a body differ: "
        "add them where yours do not"
    )
    return [{"name": "affine"}, {"name": "brightness"}, {"name": "contrast"}, {"name": "noise"}]


def _explain(
    reasons: dict[str, str],
    found: Fingerprint,
    goal: Goal,
    shape: Shape,
    cost: Cost,
    tried: Sequence[str],
    extent: np.ndarray,
) -> None:
    """The reasons for patch, network, loss and length."""
    whole = all(edge >= have for edge, have in zip(shape.patch, extent, strict=True))
    reasons["patch"] = (
        f"the median case has {_by(np.round(extent).astype(int))} voxels on this grid, "
        f"{'which the patch holds whole' if whole else 'of which memory and time leave a part'}; measured on this "
        f"machine, each with {goal.memory_bytes / 1e9:.3g} GB and at least {_LEAST_STEPS} steps as the limits: "
        f"{'; '.join(tried)}"
    )
    coarsest = [edge // math.prod(stride[axis] for stride in shape.strides) for axis, edge in enumerate(shape.patch)]
    width = "16 channels at the finest, which two cores can do" if goal.device == "cpu" else "32 channels at the finest"
    reasons["network"] = f"{len(shape.strides) + 1} stages, until the coarsest has {_by(coarsest)} voxels; {width}"
    total = np.array([case.voxels for case in found.cases]).sum(axis=0)
    voxels = sum(math.prod(case.shape) for case in found.cases)
    shares = ", ".join(f"{name} {count / voxels:.2%}" for name, count in zip(found.labels, total, strict=True))
    reasons["loss"] = f"Dice weighs labels alike, cross-entropy voxels; of the voxels, {shares}"
    reasons["training"] = (
        f"{goal.minutes:g} minutes; a step of {shape.batch} patches took {cost.step_s:.2f} s, so that about "
        f"{_steps(cost, goal)} steps fit, and the schedule is sized to them before the first"
    )
    single = [
        name
        for index, name in enumerate(found.labels)
        if all(case.components[index] <= 1 for case in found.cases) and total[index]
    ]
    if single:
        reasons["training"] += (
            f". In every case {', '.join(single)} {'is' if len(single) == 1 else 'are'} of one piece: "
            "`medseg cross-validate` tries keep_largest and keeps it where it helps"
        )


def _steps(cost: Cost, goal: Goal) -> int:
    return max(1, int(goal.minutes * 60 / cost.step_s))


def _told(shape: Shape, cost: Cost) -> str:
    return f"{shape.batch} x {_by(shape.patch)}: {cost.peak_bytes / 1e9:.2f} GB, {cost.step_s:.2f} s"


def _by(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values)


def _written(content: Mapping[str, Any], reasons: Mapping[str, str], prefix: str, depth: int) -> Iterator[str]:
    """Lines of YAML; the first two levels as blocks, what lies deeper in one line."""
    pad = "  " * depth
    for key, value in content.items():
        if f"{prefix}{key}" in reasons:
            wrapped = textwrap.wrap(reasons[f"{prefix}{key}"], 117 - len(pad))
            yield from (f"{pad}# {line}" for line in wrapped)
        if isinstance(value, Mapping) and depth == 0:
            yield f"{pad}{key}:"
            yield from _written(value, reasons, f"{prefix}{key}.", depth + 1)
        else:
            flow = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            yield f"{pad}{key}: {flow}"
