"""Where a residual encoder halves its grid and where it dilates instead, known without building it."""

from __future__ import annotations

from collections.abc import Sequence


def stage_steps(stages: int, output_stride: int) -> list[tuple[int, int]]:
    """Stride and dilation of each stage: after the stem's 2, stages halve down to the output stride, then dilate."""
    spacing, dilation, steps = 2, 1, []
    for _ in range(stages):
        stride = 2 if spacing < output_stride else 1
        spacing, dilation = spacing * stride, dilation if stride == 2 else 2 * dilation
        steps.append((stride, dilation))
    return steps


def plan_problem(widths: Sequence[int], blocks: Sequence[int], output_stride: int) -> str | None:
    """Why there is no such encoder."""
    if len(blocks) != len(widths):
        return f"blocks has {len(blocks)} entries, but there are {len(widths)} channels; give one a stage"
    if 2 * 2 ** len(widths) < output_stride:
        return f"channels has {len(widths)} stages, which end at stride {2 * 2 ** len(widths)}, not at {output_stride}"
    return None


def encoder_field(blocks: Sequence[int], output_stride: int) -> int:
    """Voxels along an axis that one voxel of the coarsest stage sees: 1 + sum of (kernel - 1) x dilation x spacing."""
    seen, spacing = 1 + 2, 2  # the stem's 3 on the image
    for count, (stride, dilation) in zip(blocks, stage_steps(len(blocks), output_stride), strict=True):
        seen += 2 * dilation * spacing
        spacing *= stride
        seen += (2 * count - 1) * 2 * dilation * spacing
    return seen


def group_problem(widths: Sequence[int], fused: int, groups: int) -> str | None:
    """Why group norm cannot be used; `fused` channels hold what was pooled over the whole patch."""
    if unequal := [width for width in widths if width % groups]:
        return f"{unequal} channels cannot be split in {groups} groups; change them, or groups"
    if fused == groups:
        return f"width {fused} leaves groups of one channel, whose mean is what was pooled; lower groups"
    return None
