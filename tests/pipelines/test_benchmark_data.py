"""The benchmark of the data: all sides draw and compute the same, whatever time they take for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.data.augmentation import Affine, AugmentationConfig, Brightness, Contrast, Flip, Noise
from medseg.data.loaders import TrainingCase, training_case
from medseg.data.patches import PatchSettings
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.data.preprocessing import Preprocessing, prepare
from medseg.experiment import read_experiment
from medseg.training.loop import Training
from pipelines.benchmark.data.crops import LargeVolume
from pipelines.benchmark.data.memory import anonymous_bytes, cases_on_disk, draw
from pipelines.benchmark.data.monai_sources import LIBRARY as MONAI
from pipelines.benchmark.data.monai_sources import monai_sources
from pipelines.benchmark.data.rounds import Comparison, in_rounds
from pipelines.benchmark.data.sources import Draws, Source, alike, in_memory, medseg_source
from pipelines.benchmark.data.steps import OneBatch, Stopwatch, train
from pipelines.benchmark.data.throughput import PEERS, patch_rates
from pipelines.console import Console
from pipelines.study import build_training, open_study
from tests.pipelines.phantom_study import write_experiment, write_phantoms

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPE, SIZE = (20, 26, 18), (24, 16, 8)  # the patch is wider than a case along its first axis
LIBRARIES = ["medseg", MONAI, "batchgeneratorsv2"]
BATCH = 3


@pytest.fixture(scope="module")
def cases() -> list[TrainingCase]:
    """Three phantoms in memory."""
    found = []
    for number in range(3):
        image, label = phantom(number, SHAPE)
        found.append(training_case(f"p{number}", prepare(image, Preprocessing(), label), PHANTOM_LABELS))
    return found


def draws_of(
    cases: Sequence[TrainingCase],
    augmentation: Sequence[AugmentationConfig] = (),
    size: tuple[int, ...] = SIZE,
    share: float = 1 / 3,
    workers: int = 0,
    slice_axis: int | None = None,
) -> Draws:
    patch = PatchSettings(size=size, foreground_share=share, slice_axis=slice_axis)
    return Draws(cases, patch, tuple(augmentation), BATCH, workers)


def sources_of(library: str, draws: Draws) -> list[Source]:
    if library == "medseg":
        return [medseg_source(draws)]
    cases = in_memory(draws.cases, draws.patch.box)
    if library == MONAI:
        return monai_sources(draws, cases)
    pytest.importorskip("batchgeneratorsv2")
    from pipelines.benchmark.data.batchgenerators_sources import batchgenerators_sources

    return batchgenerators_sources(draws, cases)


def patches_of(source: Source, batches: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image and label of each patch, under one seed of all that a library may draw from."""
    torch.manual_seed(0)
    np.random.seed(0)
    with closing(source.open()) as stream:
        for batch in islice(stream, batches):
            image, label = batch["image"], batch["label"]
            assert image.dtype == label.dtype == torch.float32
            assert len(image) == len(label) == BATCH
            yield from zip(image.numpy(), label.numpy(), strict=True)


@pytest.mark.parametrize("library", LIBRARIES)
def test_patches_of_all_libraries_are_pieces_of_the_same_padded_cases(library: str, cases: list[TrainingCase]) -> None:
    draws = draws_of(cases)
    padded = in_memory(cases, SIZE)
    assert [tuple(one.image.shape) for one in padded] == [(1, 24, 26, 18)] * 3
    for source in sources_of(library, draws):
        for image, label in patches_of(source, 8):
            assert image.shape == label.shape == (1, *SIZE)
            assert sum(_is_piece(image, label, one.image.numpy(), one.label.numpy()) for one in padded) == 1


def _is_piece(image: np.ndarray, label: np.ndarray, whole: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a patch lies somewhere in a case; noise makes nearly every voxel of a phantom unique."""
    inside = np.argwhere(whole[0] == image[0, 12, 0, 0])  # of the first axis, along which there is no room
    for _, *start in inside[inside[:, 0] == 12]:
        place = (slice(None), slice(None), *(slice(s, s + e) for s, e in zip(start, SIZE[1:], strict=True)))
        if np.array_equal(whole[place], image) and np.array_equal(labels[place], label):
            return True
    return False


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_show_labels_as_often(library: str, cases: list[TrainingCase]) -> None:
    """The share of foreground in 120 patches about labels, and about anything, is that of medseg's within a fifth."""
    for share in (1.0, 0.4):
        small = (8, 8, 8)
        wanted = _foreground(medseg_source(draws_of(cases, size=small, share=share)))
        for source in sources_of(library, draws_of(cases, size=small, share=share)):
            assert _foreground(source) == pytest.approx(wanted, rel=0.2), (source.name, share)


def _foreground(source: Source) -> float:
    return float(np.mean([(label > 0).mean() for _, label in patches_of(source, 40)]))


@pytest.mark.parametrize("library", LIBRARIES)
def test_changes_are_of_one_kind_and_size(library: str, cases: list[TrainingCase]) -> None:
    """One case, shown whole: what was done to it can be told from it."""
    (whole,) = in_memory(cases[:1], SHAPE)
    before, label = whole.image.numpy(), whole.label.numpy()
    steps = {
        "brightness": Brightness(probability=1, change=0.2),
        "contrast": Contrast(probability=1, change=0.2),
        "noise": Noise(probability=1, deviation=0.3),
    }
    for name, step in steps.items():
        for source in sources_of(library, draws_of(cases[:1], [step], SHAPE)):
            found = []
            for after, kept in patches_of(source, 4):
                assert np.array_equal(kept, label)
                found.append(_size_of_change(name, before, after))
            assert len({round(one, 4) for one in found}) > 1, source.name  # each patch anew
            low, high = (0, 0.3) if name == "noise" else (0.8, 1.2)
            assert low <= min(found) < max(found) <= high * 1.01, (source.name, name)


def _size_of_change(name: str, before: np.ndarray, after: np.ndarray) -> float:
    """The factor, or the deviation of what was added; a factor is that of every voxel."""
    if name == "noise":
        return float((after - before).std())
    centre = before.mean() if name == "contrast" else 0.0
    factor = float(((after - centre) * (before - centre)).sum() / ((before - centre) ** 2).sum())
    np.testing.assert_allclose(after, (before - centre) * factor + centre, atol=1e-3)
    return factor


@pytest.mark.parametrize("library", LIBRARIES)
def test_image_and_label_turn_together_in_half_of_the_patches(library: str) -> None:
    """An image that is its own label: after rotation and scaling the two still lie upon one another."""
    label = torch.zeros(1, 24, 24, 24)
    label[:, 4:20, 8:18, 6:14] = 1
    places = [np.argwhere(label[0].numpy())]
    case = TrainingCase("box", label.clone(), label.int(), places, 0.0)
    for source in sources_of(library, draws_of([case], [Affine(rotate_degrees=20, scale=0.2)], (24, 24, 24))):
        moved = 0
        for image, truth in patches_of(source, 20):
            assert ((image > 0.5) != (truth > 0.5)).mean() < 0.02, source.name
            assert set(np.unique(truth)) == {0.0, 1.0}
            moved += not np.array_equal(truth, label.numpy())
        assert 0.25 < moved / (20 * BATCH) < 0.75, source.name


@pytest.mark.parametrize("library", LIBRARIES)
def test_drawing_leaves_the_cases_as_they_are(library: str, cases: list[TrainingCase]) -> None:
    before = [case.image.clone() for case in cases]
    steps = [Affine(probability=0.5), Brightness(probability=1), Contrast(probability=1), Noise(probability=1)]
    for source in sources_of(library, draws_of(cases, steps, SHAPE)):
        first = list(patches_of(source, 2))
        again = list(patches_of(source, 2))
        if library == MONAI:  # seeded from torch: what was cached gives the same once more
            assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(first, again, strict=True))
    assert all(torch.equal(case.image, image) for case, image in zip(cases, before, strict=True))


@pytest.mark.parametrize("library", LIBRARIES)
def test_workers_and_slices(library: str, cases: list[TrainingCase]) -> None:
    """With a worker, and slices of volumes for a 2D network."""
    draws = draws_of(cases, [Affine(), Noise()], size=(16, 16), workers=1, slice_axis=2)
    for source in sources_of(library, draws):
        for image, label in patches_of(source, 3):
            assert image.shape == label.shape == (1, 16, 16)
            assert np.isfinite(image).all()
            assert set(np.unique(label)) <= {0.0, 1.0, 2.0}


def test_what_not_every_library_has_is_left_out_of_all_and_said(cases: list[TrainingCase]) -> None:
    draws, left = alike(draws_of(cases, [Noise(), Flip(), Affine(shear=0.1), Affine()]))
    assert [step.name for step in draws.augmentation] == ["noise", "affine"]
    assert left == ["flip", "affine"]
    assert alike(draws)[1] == []


def test_without_the_extra_its_row_is_left_out_and_said_in_one_line(
    cases: list[TrainingCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "batchgeneratorsv2", None)
    found, notes = patch_rates(draws_of(cases), 1, 2, Console())
    assert [one.beside.split(",")[0] for one in found] == [MONAI, MONAI]
    assert sum("(its faster one)" in one.beside for one in found) == 1
    assert [one.at_least is not None for one in found] == ["(its faster one)" in one.beside for one in found]
    assert notes == ["batchgeneratorsv2 is not installed and left out; pip install 'medseg[peers]'."]


def test_the_extra_is_one_that_the_package_offers() -> None:
    offered = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = [re.match(r"[\w.-]+", line) for line in offered[PEERS.name]]
    assert [found[0] for found in brought if found] == list(PEERS.modules)
    assert PEERS.command == f"pip install 'medseg[{PEERS.name}]'"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network on three phantoms to train on, whose files lie in the config's folder."""
    home = tmp_path_factory.mktemp("study")
    write_phantoms(home / "manifest", home, folds=[0, 1, 1, 1])
    augmentation = [{"name": "affine"}, {"name": "noise"}]
    return write_experiment(home / "tiny.yaml", augmentation=augmentation, training={"total_steps": 3})


def training_of(experiment: Path, folder: Path, augment_on: str = "workers") -> Training:
    (folder / "checkpoints").mkdir(parents=True)
    study = open_study(read_experiment(experiment, [f"training.augment_on={augment_on}"]), experiment.parent)
    return build_training(study, folder, torch.device("cpu"), Console())


@pytest.mark.parametrize("augment_on", ["workers", "device"])
def test_a_step_on_a_repeated_batch_is_one_on_real_data(experiment: Path, tmp_path: Path, augment_on: str) -> None:
    """The first batch is the same: loss and weights after it are equal in every bit; later ones stay and change."""
    real, repeated = (training_of(experiment, tmp_path / name, augment_on) for name in ("real", "repeated"))
    losses = train(real, real.stream, Stopwatch(0, 1)).losses
    assert train(repeated, OneBatch(repeated.stream), Stopwatch(0, 1)).losses == losses
    assert real.patches.changed_later is (augment_on == "device")
    assert not repeated.patches.changed_later
    weights = real.network.state_dict(), repeated.network.state_dict()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    same = [batch["image"] for batch in repeated.stream.batches(range(4))]
    assert all(image is same[0] for image in same)
    shown = [tuple(batch["case_id"]) for batch in real.stream.batches(range(4))]
    assert len(set(shown)) > 1


def test_a_stopwatch_stops_after_its_steps_and_leaves_the_warm_up_out(experiment: Path, tmp_path: Path) -> None:
    training = training_of(experiment, tmp_path / "run")
    watch = train(training, training.stream, Stopwatch(2, 3))
    assert training.progress.step == len(watch.ends) == 5
    watch.ends = [1.0, 10.0, 12.0, 13.0, 16.0]
    assert watch.steps_per_s == pytest.approx(3 / 6)


def test_crops_are_those_of_the_array(tmp_path: Path) -> None:
    shape, size = (30, 40, 20), (12, 16, 12)
    image, label = phantom(0, shape)
    prepared = prepare(image, Preprocessing(), label).image[0]
    volume = LargeVolume.made(tmp_path / "volume", shape, size)
    assert volume.shape == shape
    for start in ([0, 0, 0], [18, 24, 8], [3, 7, 5]):
        place = tuple(slice(first, first + extent) for first, extent in zip(start, size, strict=True))
        for crop in (volume.from_cache()(start), volume.from_bare()(start)):
            assert np.array_equal(crop, prepared[place])
            assert not isinstance(crop, np.memmap)
        assert np.array_equal(volume.from_nifti()(start), image.array[0][place])
    assert volume.milliseconds(volume.from_cache(), 3, np.random.default_rng(0)) > 0


def test_memory_that_a_process_holds_for_itself_is_counted() -> None:
    before = anonymous_bytes()
    assert before is not None
    held = np.ones(8_000_000)
    after = anonymous_bytes()
    assert after is not None
    assert after - before > 0.9 * held.nbytes


def test_patches_are_drawn_from_so_many_cases_of_their_own_content(tmp_path: Path) -> None:
    manifests = cases_on_disk(tmp_path / "cases", 2, 3, Console())
    assert [count for count, _ in manifests] == [2, 6]
    entries = list((tmp_path / "cases" / "cache").glob("??/*/entry.json"))
    assert len(entries) == 6
    for count, manifest in manifests:
        found = draw(manifest, tmp_path / "cases", 8)
        assert (found["cases"], found["patches"]) == (count, 8)
    assert len(list((tmp_path / "cases" / "cache").glob("??/*/entry.json"))) == 6  # nothing was prepared again


def test_sides_take_turns_and_each_begins_a_round() -> None:
    order = list[str]()

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = in_rounds(Console(), "turns", {name: partial(turn, name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"
    assert found == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_a_ratio_is_the_median_of_the_rounds_own_with_its_extremes() -> None:
    content = Comparison("x", "1/s", [1.0, 4.0, 9.0], "y", [2.0, 2.0, 3.0], at_least=2.0).content()
    assert (content["ratio"], content["ratio_low"], content["ratio_high"]) == (2.0, 0.5, 3.0)
    assert (content["medseg"], content["other"], content["rounds"]) == (4.0, 2.0, 3)
    assert content["met"] is True
    assert Comparison("x", "1/s", [1.0], "y", [2.0]).is_met is None


@pytest.mark.slow
def test_one_run_gives_every_row(experiment: Path, tmp_path: Path) -> None:
    """The command as a person types it, shortened, with the children that it starts."""
    short = ["--rounds", "2", "--steps", "1", "--batches", "1", "--crops", "1", "--times", "2", "--patches", "4"]
    goal = ["--volume", "20", "30", "10", "--output", str(tmp_path / "out"), "--device", "cpu", "--json"]
    command = [sys.executable, "-P", "-c", "from pipelines.command import main; main()", "benchmark", "data"]
    done = subprocess.run(
        [*command, str(experiment), "--data-root", str(experiment.parent), *short, *goal],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = [(row["measured"], row["beside"].replace(" (its faster one)", "")) for row in result["rows"]]
    patches, crop = "patches, cut and augmented", "crop of 8 x 12 x 6 from 20 x 30 x 10 on disk"
    expected = [("training with real data", "one repeated batch")]
    expected += [(patches, f"{MONAI}, DataLoader"), (patches, f"{MONAI}, ThreadDataLoader")]
    expected += [(patches, "batchgeneratorsv2, DataLoader")] if PEERS.is_installed() else []  # no workers, no processes
    expected += [(crop, "memory-mapped .npy"), (crop, ".nii.gz by nibabel")]
    assert rows == [*expected, ("memory to draw from 32 cases", "from 16 cases")]
    for row in result["rows"]:
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert min(row["medseg"], row["other"]) > 0
    assert [row["at_least"] for row in result["rows"]].count(1.3) == 1
    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert page.count("\n| ") == 1 + len(rows) + 1
    assert "32 cases need" in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "benchmark.csv",
        "benchmark.json",
        "benchmark.md",
    ]
