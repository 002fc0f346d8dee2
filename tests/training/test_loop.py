"""Training is an instrument: the same run twice is the same run, and a stopped one goes on as if nothing happened."""

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.data.augmentation import Affine, Noise
from medseg.data.loaders import Patches, training_case
from medseg.data.patches import PatchSettings
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.data.preprocessing import Preprocessing, prepare
from medseg.errors import ConfigError, TrainingError, WriteError
from medseg.losses import DiceCEConfig, build_loss
from medseg.networks import UNetConfig
from medseg.reproducibility import weights_digest
from medseg.training import stream
from medseg.training.loop import Training
from medseg.training.optimizers import SGD
from medseg.training.settings import TrainingSettings

SMALL = UNetConfig(channels=(4, 8), dropout=0.2)  # dropout, so that the network draws random numbers too


class Heard:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.scores: list[tuple[int, float]] = []
        self.warnings: list[str] = []
        self.stops = False

    def stepped(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.losses.append(values["loss"])
        self.rates.append(values["learning_rate"])

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        self.scores.append((step, scores["score"]))

    def warned(self, message: str) -> None:
        self.warnings.append(message)

    def asks_to_stop(self) -> bool:
        return self.stops


@pytest.fixture(scope="module")
def patches() -> Patches:
    cases = []
    for number in range(5):
        image, label = phantom(number, (20, 24, 16))
        cases.append(training_case(f"phantom{number}", prepare(image, Preprocessing(), label), PHANTOM_LABELS))
    return Patches(cases, PatchSettings(size=(16, 16, 16)), [Affine(probability=0.8), Noise(probability=0.8)], seed=3)


def training(  # type: ignore[no-untyped-def]
    patches: Patches, folder: Path, validate=None, network: Any = SMALL, **settings: object
) -> Training:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    plan = TrainingSettings.model_validate({"total_steps": 6, "batch_size": 2, "workers": 0, **settings})
    loss = build_loss(DiceCEConfig(), PHANTOM_LABELS)
    return Training(network.build(1, 3), loss, PHANTOM_LABELS, patches, plan, torch.device("cpu"), folder, validate)


def digest_after(run: Training, steps: int = 6) -> str:
    run.run(steps, Heard())
    return weights_digest(run.network.state_dict())


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_weights_do_not_depend_on_the_number_of_workers(patches: Patches, tmp_path: Path, workers: int) -> None:
    reference = digest_after(training(patches, tmp_path))
    assert digest_after(training(patches, tmp_path, workers=workers)) == reference


def test_weights_do_not_depend_on_where_patches_are_augmented(patches: Patches, tmp_path: Path) -> None:
    augmentation = [Affine(probability=0.8), Noise(probability=0.8)]
    later = Patches(patches.cases, patches.patch, augmentation, seed=3, changed_later=True)
    mixed = {"mix": {"name": "cutmix"}, "accumulate": 2}
    reference = digest_after(training(patches, tmp_path, **mixed))
    assert digest_after(training(later, tmp_path, augment_on="device", workers=1, **mixed)) == reference


def test_another_seed_gives_other_weights(patches: Patches, tmp_path: Path) -> None:
    other = Patches(patches.cases, patches.patch, [Noise()], seed=4)
    assert digest_after(training(patches, tmp_path)) != digest_after(training(other, tmp_path))


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_stopped_run_resumes_as_the_very_same_run(patches: Patches, tmp_path: Path, stop: int) -> None:
    whole = digest_after(training(patches, tmp_path / "whole"))
    first = training(patches, tmp_path / "parts")
    remaining = range(0, stop)
    for step, batch in zip(remaining, first.stream.batches(remaining), strict=True):
        first._step(step, 6, batch)
    first.progress = type(first.progress)(step=stop)
    first.save(6)
    second = training(patches, tmp_path / "parts")
    torch.manual_seed(999)  # what the process did before must not matter
    assert second.restore() == (6, [])
    assert digest_after(second) == whole


def test_timing_a_step_leaves_no_trace(patches: Patches, tmp_path: Path) -> None:
    timed = training(patches, tmp_path / "timed")
    step_s, needs = timed.time_a_step()
    assert step_s > 0
    weights = sum(value.nbytes for value in timed.network.state_dict().values())
    assert needs.disk_bytes == pytest.approx((3 * 3 + 1) * weights, rel=0.1)  # 3 checkpoints with Adam's two moments
    assert needs.memory_bytes > 100e6
    assert digest_after(timed) == digest_after(training(patches, tmp_path / "plain"))


def test_the_loss_falls(patches: Patches, tmp_path: Path) -> None:
    heard = Heard()
    training(patches, tmp_path, optimizer={"name": "adam", "learning_rate": 0.02}).run(60, heard)
    assert np.mean(heard.losses[-10:]) < 0.7 * np.mean(heard.losses[:10])


def test_the_learning_rate_follows_the_schedule(patches: Patches, tmp_path: Path) -> None:
    heard = Heard()
    settings = {"schedule": {"name": "polynomial", "power": 1.0}, "optimizer": {"name": "adam", "learning_rate": 0.1}}
    training(patches, tmp_path, **settings).run(4, heard)
    assert np.allclose(heard.rates, [0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize("says_so", [True, False])
def test_cases_with_one_label_each_teach_both_where_the_manifest_says_so(tmp_path: Path, says_so: bool) -> None:
    """Of six phantoms three have their heads marked and three their tails; the rest lies in the background."""
    cases, rows, wholes = [], [], []
    for number in range(6):
        image, label = phantom(number, (24, 32, 20))
        wholes.append(label.array)
        name, value = PHANTOM_LABELS.names[number % 2], 1 + number % 2
        partly = replace(label, array=np.where(label.array == value, value, 0))
        cases.append(training_case(f"phantom{number}", prepare(image, Preprocessing(), partly), PHANTOM_LABELS))
        rows.append(PHANTOM_LABELS.annotated([name] if says_so else None))
    patch = PatchSettings(size=(24, 32, 20))
    patches = Patches(cases, patch, [], seed=3, annotated=torch.tensor(rows))
    larger = UNetConfig(channels=(8, 16, 32))
    run = training(patches, tmp_path, network=larger, optimizer={"name": "adam", "learning_rate": 0.005})
    run.run(40, Heard())
    run.network.eval()
    with torch.no_grad():
        told = [run.network(case.image[None]).argmax(dim=1)[0].numpy() for case in cases]
    unmarked = [2 - number % 2 for number in range(6)]
    found = [(one == value)[whole == value].mean() for one, whole, value in zip(told, wholes, unmarked, strict=True)]
    assert np.min(found) > 0.7 if says_so else np.min(found) < 0.4


def test_mixing_refuses_cases_with_labels_that_nobody_looked_for(patches: Patches, tmp_path: Path) -> None:
    partly = Patches(patches.cases, patches.patch, [], seed=3, annotated=torch.ones(5, 3, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"training\.mix cutmix needs cases in which every label was looked for"):
        training(partly, tmp_path, mix={"name": "cutmix"})


def test_accumulated_pieces_equal_the_whole_batch(patches: Patches, tmp_path: Path) -> None:
    """With a loss that is a mean over patches, gradients of pieces add up to that of the batch."""

    def weights(accumulate: int) -> torch.Tensor:
        run = training(patches, tmp_path, accumulate=accumulate, precision="fp32", optimizer=SGD())
        run.network.eval()
        run.loss = build_loss(DiceCEConfig(batch=False), PHANTOM_LABELS)
        for module in run.network.modules():
            if isinstance(module, torch.nn.Dropout3d):
                module.p = 0.0
        run.run(2, Heard())
        return torch.cat([value.flatten() for value in run.network.state_dict().values()])

    assert torch.allclose(weights(1), weights(2), atol=1e-5)


def test_patience_stops_and_the_best_weights_are_kept(patches: Patches, tmp_path: Path) -> None:
    scores = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    run = training(
        patches,
        tmp_path,
        lambda network: {"score": next(scores)},
        validate_every_epochs=1,
        patience=2,
        keep="best",
        batch_size=5,
    )
    heard = Heard()
    progress = run.run(20, heard)
    assert [score for _, score in heard.scores] == [0.5, 0.7, 0.6, 0.6]
    assert (progress.step, progress.best_step) == (4, 2)
    kept = run.best.newest().content["network"]
    assert weights_digest(run.chosen_weights()) == weights_digest(kept)
    assert weights_digest(run.chosen_weights()) != weights_digest(run.network.state_dict())


def test_a_loss_that_is_no_number_stops_with_the_cases(patches: Patches, tmp_path: Path) -> None:
    run = training(patches, tmp_path)
    with torch.no_grad():
        next(iter(run.network.parameters())).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"step 1: loss is nan on phantom\d, phantom\d"):
        run.run(1, Heard())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(patches: Patches, tmp_path: Path) -> None:
    whole = digest_after(training(patches, tmp_path / "whole"))
    run = training(patches, tmp_path / "parts", checkpoint_steps=4)
    run.run(6, Heard())
    newest, before = run.last.files()
    assert (newest.name[:13], before.name[:13]) == ("last-00000006", "last-00000004")
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    resumed = training(patches, tmp_path / "parts")
    assert resumed.restore() == (6, [f"{newest.name} is damaged; the checkpoint before it is used"])
    assert resumed.progress.step == 4
    assert digest_after(resumed) == whole
    assert newest.exists()  # written anew


def test_a_run_without_a_whole_checkpoint_cannot_go_on(patches: Patches, tmp_path: Path) -> None:
    run = training(patches, tmp_path)
    with pytest.raises(TrainingError, match=r"holds no whole checkpoint; start a new run"):
        run.restore()
    run.save(6)
    run.last.files()[0].write_bytes(b"")
    with pytest.raises(TrainingError, match=r"holds no whole checkpoint \(last-00000000-\w+\.pt damaged\)"):
        run.restore()


def test_another_machine_is_named_when_a_run_goes_on(
    patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(patches, tmp_path).save(6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 97)
    (note,) = training(patches, tmp_path).restore().notes
    assert note.endswith("-> 97: the same bits as without a stop are not promised")


def fail_with_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


def test_a_full_disk_while_saving_keeps_the_checkpoint_before(
    patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(patches, tmp_path)
    run.save(6)
    (path,) = run.last.files()
    before = path.read_bytes()
    fail_with_a_full_disk(monkeypatch)
    run.progress = type(run.progress)(step=1)
    with pytest.raises(WriteError, match="No space left"):
        run.save(6)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_for_a_while_ends_no_run(
    patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Filling(Heard):
        """Fills the disk at the third step and empties it at the fifth."""

        def stepped(self, step: int, total: int, values: Mapping[str, float]) -> None:
            if step == 3:
                fail_with_a_full_disk(monkeypatch)
            if step == 5:
                monkeypatch.undo()

    heard = Filling()
    run = training(patches, tmp_path, checkpoint_steps=1)
    run.run(6, heard)
    assert [text.partition(":")[0] for text in heard.warnings] == ["no checkpoint at step 3", "no checkpoint at step 4"]
    assert all("No space left" in text for text in heard.warnings)
    assert [path.name[:13] for path in run.last.files()] == ["last-00000006", "last-00000005"]


def test_the_average_follows_the_weights_by_the_formula(patches: Patches, tmp_path: Path) -> None:
    plain = training(patches, tmp_path / "plain", checkpoint_steps=1, checkpoints_kept=10)
    plain.run(5, Heard())
    states = [torch.load(path, weights_only=True)["network"] for path in reversed(plain.last.files())]
    expected = {name: value.double() for name, value in states[0].items()}
    for step, state in enumerate(states[1:], start=1):
        kept = min(0.3, (1 + step) / (10 + step))
        expected = {name: kept * value + (1 - kept) * state[name].double() for name, value in expected.items()}
    averaged = training(patches, tmp_path / "averaged", ema=0.3)
    assert digest_after(averaged, 5) == weights_digest(plain.network.state_dict())  # it changes nothing in training
    chosen = averaged.chosen_weights()
    assert all(torch.allclose(chosen[name].double(), value, atol=1e-6) for name, value in expected.items())
    resumed = training(patches, tmp_path / "averaged", ema=0.3)
    resumed.restore()
    assert weights_digest(resumed.chosen_weights()) == weights_digest(chosen)


def test_the_average_is_what_is_validated_and_timing_leaves_it_alone(patches: Patches, tmp_path: Path) -> None:
    seen: list[str] = []

    def validate(network: torch.nn.Module) -> dict[str, float]:
        seen.append(weights_digest(network.state_dict()))
        return {"score": 1.0}

    run = training(patches, tmp_path, validate, ema=0.9, validate_every_epochs=1, batch_size=5, keep="best")
    run.time_a_step()
    run.run(1, Heard())
    assert seen == [weights_digest(run.chosen_weights())]
    timeless = training(patches, tmp_path / "timeless", ema=0.9, batch_size=5)
    timeless.run(1, Heard())
    assert weights_digest(timeless.chosen_weights()) == seen[0]


def test_memory_layout_changes_no_result_beyond_rounding(patches: Patches, tmp_path: Path) -> None:
    def weights(**settings: object) -> torch.Tensor:
        run = training(patches, tmp_path, precision="fp32", **settings)
        run.run(3, Heard())
        return torch.cat([value.flatten() for value in run.chosen_weights().values()])

    last = training(patches, tmp_path, channels_last=True)
    kernels = [value for value in last.network.parameters() if value.ndim == 5 and value.shape[1] > 1]
    assert any(value.is_contiguous(memory_format=torch.channels_last_3d) for value in kernels)
    assert torch.allclose(weights(), weights(channels_last=True), atol=1e-4)


def test_the_rate_falls_where_validations_stop_improving(patches: Patches, tmp_path: Path) -> None:
    scores = iter([0.5, 0.4, 0.4, 0.6, 0.6, 0.6])
    schedule = {"name": "plateau", "patience": 2, "fall": 0.5}
    heard, plan = Heard(), {"validate_every_epochs": 1, "batch_size": 5, "schedule": schedule}
    training(patches, tmp_path, lambda network: {"score": next(scores)}, **plan).run(6, heard)
    assert np.allclose(np.array(heard.rates) / heard.rates[0], [1, 1, 1, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    "settings",
    [
        {"mix": {"name": "cutmix", "probability": 0.7}},
        {"mix": {"name": "mixup", "probability": 0.7}},
        {"hard_cases": 0.8},
        {"hard_cases": 0.8, "mix": {"name": "cutmix"}, "accumulate": 2, "workers": 1},
    ],
    ids=["cutmix", "mixup", "hard_cases", "all"],
)
def test_techniques_change_training_and_resume_as_the_very_same_run(
    patches: Patches, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_ROUND_STEPS", 2)  # so that there are some
    whole = digest_after(training(patches, tmp_path / "whole", **settings))
    assert whole != digest_after(training(patches, tmp_path / "plain"))
    stopped = training(patches, tmp_path / "parts", checkpoint_steps=3, **settings)
    stopped.run(6, Heard())
    stopped.last.files()[0].unlink()
    resumed = training(patches, tmp_path / "parts", **settings)
    resumed.restore()
    assert resumed.progress.step == 3
    assert digest_after(resumed) == whole


def test_a_stop_where_a_validation_is_due_skips_none(patches: Patches, tmp_path: Path) -> None:
    plan = {"validate_every_epochs": 1, "batch_size": 5, "schedule": {"name": "plateau", "patience": 1}}

    def scored(folder: Path, stop: bool) -> tuple[str, list[tuple[int, float]]]:
        scores = iter([0.5, 0.4, 0.6, 0.5])
        first = training(patches, folder, lambda network: {"score": next(scores)}, **plan)
        heard = Heard()
        heard.stops = stop
        first.run(4, heard)  # stops after a step, or not at all
        again = training(patches, folder, lambda network: {"score": next(scores)}, **plan)
        again.restore()
        heard.stops = False
        again.run(4, heard)
        return weights_digest(again.network.state_dict()), heard.scores

    assert scored(tmp_path / "stopped", True) == scored(tmp_path / "whole", False)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set"), "cumsum_cuda_"),
        (torch.OutOfMemoryError("CUDA out of memory"), "step 1: cpu is out of memory; lower training.batch_size"),
    ],
)
def test_what_a_device_cannot_do_is_told_with_what_helps(
    patches: Patches, tmp_path: Path, error: RuntimeError, says: str
) -> None:
    run = training(patches, tmp_path)

    def fails(*_: object) -> None:
        raise error

    run.loss.forward = fails
    with pytest.raises(TrainingError, match=says):
        run.run(2, Heard())
    with pytest.raises(TrainingError, match=says):
        run.time_a_step()
