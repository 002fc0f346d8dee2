"""A trained model comes back from its folder as it was, or not at all; its use may change, what was trained not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.config import validate
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.errors import ConfigError, ModelError, WriteError
from medseg.experiment import ExperimentConfig
from medseg.inference.ensemble import Ensemble
from medseg.inference.settings import Average
from medseg.labels import Label, LabelSet
from medseg.reproducibility import weights_digest
from medseg.trained_model import ModelCard, TrainedModel, ensemble_of, load_model
from medseg.volume import Volume

CPU = torch.device("cpu")
SHAPE = (12, 14, 10)


def trained(seed: int = 0, channels: tuple[str, ...] = ("MR",)) -> TrainedModel:
    """A small network's first weights, which stand for trained ones."""
    experiment = {
        "name": "tiny",
        "data": {"manifest": "data", "fold": 0},
        "patch": {"size": [8, 8, 8]},
        "network": {"name": "unet", "channels": [4, 8]},
        "training": {"total_steps": 1},
        "inference": {"precision": "fp32"},
    }
    torch.manual_seed(seed)
    config = validate(ExperimentConfig, experiment, "test")
    weights = config.network.build(len(channels), PHANTOM_LABELS.channels).state_dict()
    dataset = {"name": "tiny", "version": "1", "licence": "none", "source": "generated", "channels": list(channels)}
    card = {
        "name": "tiny",
        "version": "1",
        "medseg_version": "0",
        "experiment": config.model_dump(mode="json"),
        "dataset": {**dataset, "labels": PHANTOM_LABELS.model_dump(mode="json")},
        "manifest_digest": "0" * 64,
        "training_cases": 1,
        "total_steps": 1,
        "weights_sha256": weights_digest(weights),
    }
    return TrainedModel(validate(ModelCard, card, "card"), weights)


def segmented(model: TrainedModel, image: Volume) -> np.ndarray:
    return model.segment(image, model.predictor(CPU)).array


def test_a_loaded_model_is_the_saved_one_and_finds_the_same(tmp_path: Path) -> None:
    model, (image, _) = trained(), phantom(1, SHAPE)
    loaded = load_model(model.save(tmp_path / "model"))
    assert loaded.card == model.card
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in model.weights.items())
    assert loaded.weights.keys() == model.weights.keys()
    found = segmented(model, image)
    assert len(np.unique(found)) > 1
    assert np.array_equal(segmented(loaded, image), found)


def test_a_run_is_opened_by_its_own_folder(tmp_path: Path) -> None:
    model = trained()
    model.save(tmp_path / "run" / "model")
    assert load_model(tmp_path / "run").card == model.card


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(folder: Path) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, "schema_version": 2, "unheard": "of"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: halve(folder / "weights.pt"), r"weights\.pt.*damaged.*copy"),
        (lambda folder: (folder / "weights.pt").unlink(), r"weights\.pt.*missing.*copy"),
        (lambda folder: torch.save({"w": torch.ones(2)}, folder / "weights.pt"), r"weights\.pt.*digest.*copy"),
        (lambda folder: halve(folder / "model.json"), r"model\.json.*copy"),
        (lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe"), r"model\.json.*copy"),
        (lambda folder: (folder / "model.json").unlink(), r"holds no trained model.*give"),
        (newer, r"schema_version 2.*update medseg"),
    ],
)
def test_a_damaged_or_newer_model_is_refused(damage: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    folder = trained().save(tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelError, match=words):
        load_model(folder)


def test_saving_again_replaces_the_model_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    trained(0).save(tmp_path / "model")
    (tmp_path / "model" / "stale.txt").write_text("old")
    second = trained(1)
    second.save(tmp_path / "model")
    assert load_model(tmp_path / "model").card == second.card
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "weights.pt"]


def test_a_save_that_fails_at_the_last_move_keeps_the_earlier_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses the move of the new folder alone, as it would on a network drive that went away."""
    first = trained(0)
    first.save(tmp_path / "model")
    move = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if target == tmp_path / "model" and (path / "model.json").is_file() and not path.name.endswith("-old"):
            raise OSError(5, "Input/output error")
        return move(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WriteError, match=r"model could not be written \(Input/output error\)"):
        trained(1).save(tmp_path / "model")
    assert load_model(tmp_path / "model").card == first.card
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_is_not_saved_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="could not be written"):
        trained().save(tmp_path / "file" / "model")


def test_changed_postprocessing_is_done() -> None:
    model, (image, _) = trained(), phantom(1, SHAPE)
    emptied = model.adapted(["postprocessing=[{name: remove_small, minimum_mm3: 1.0e+9}]"])
    assert segmented(model, image).any()
    assert not segmented(emptied, image).any()
    assert emptied.card.title == model.card.title


def test_changed_inference_reaches_the_predictor() -> None:
    adapted = trained().adapted(["inference.flips=[1]", "metrics.nsd_tolerance_mm=3"])
    assert adapted.predictor(CPU).settings.flips == (1,)
    assert trained().adapted([]).card == trained().card


@pytest.mark.parametrize(
    "assignment",
    ["preprocessing.orientation=LPS", "patch.size=[16, 16, 16]", "network.channels=[8, 8]", "seed=1", "inferense.a=1"],
)
def test_what_was_trained_cannot_be_set(assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"fixed once a model is trained.*inference, metrics, postprocessing"):
        trained().adapted([assignment])


def test_postprocessing_of_an_unknown_label_is_refused_before_any_image_is_read() -> None:
    model = trained().adapted(["postprocessing=[{name: keep_largest, labels: [haed]}]"])
    with pytest.raises(ConfigError, match=r"'haed'.*'head'"):
        model.predictor(CPU)


@pytest.mark.parametrize(
    ("channels", "modality", "is_refused"),
    [
        (("MR",), "CT", True),
        (("MRI",), "CT", True),
        (("CT",), "MR", True),
        (("MR",), "MR", False),
        (("PET",), "PT", False),
        (("T1",), "CT", False),
        (("MR",), None, False),
        (("MR",), "OT", False),
    ],
)
def test_another_modality_than_the_one_trained_on_is_refused(
    channels: tuple[str, ...], modality: str | None, is_refused: bool
) -> None:
    image, _ = phantom(1, SHAPE)
    other = replace(image, provenance=replace(image.provenance, modality=modality))
    model = trained(channels=channels)
    if not is_refused:
        model.check_modality(other)
        return
    with pytest.raises(ModelError, match=rf"modality is {modality}.* {channels[0]}; .*--modality {modality}"):
        model.check_modality(other)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_an_ensemble_is_the_mean_of_its_members(tmp_path: Path, average: Average) -> None:
    members, (image, _) = [trained(seed) for seed in range(3)], phantom(1, SHAPE)
    array = image.array.astype(np.float32)
    joined = load_model(ensemble_of(members, "all", "1", average).save(tmp_path / "model"))
    found = [torch.from_numpy(one.predictor(CPU).logits(array)) for one in members]
    together = torch.from_numpy(joined.predictor(CPU).logits(array))
    if average == "logits":
        assert torch.allclose(together, torch.stack(found).mean(0), atol=1e-5)
    else:  # windows are blended as logits, so that one window must hold all
        small = array[:, :8, :8, :8]
        shares = torch.stack([torch.from_numpy(one.predictor(CPU).logits(small)).softmax(0) for one in members]).mean(0)
        together = torch.from_numpy(joined.predictor(CPU).logits(small))
        assert torch.allclose(together.softmax(0), shares, atol=1e-5)
    assert joined.card.ensemble is not None
    assert joined.card.ensemble.members == tuple(one.card.title for one in members)
    assert joined.card.experiment.data.fold is None


def test_the_probabilities_of_overlapping_labels_are_averaged_one_by_one() -> None:
    labels = LabelSet(kind="overlapping", labels=(Label(name="a", value=1), Label(name="b", value=2)))

    class Fixed(torch.nn.Module):
        def __init__(self, *logits: float) -> None:
            super().__init__()
            self.logits = torch.tensor(logits).view(1, 2, 1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.logits

    found = Ensemble([Fixed(0.0, 100.0), Fixed(-100.0, 100.0)], labels, "probabilities")(torch.zeros(1, 1, 1, 1))
    assert torch.allclose(labels.probabilities(found).flatten(), torch.tensor([0.25, 1.0]), atol=1e-6)
    assert found.isfinite().all()


def test_models_that_cannot_be_used_as_one_are_refused() -> None:
    one = trained()
    other_channels, other_data = trained(channels=("CT",)), trained(1)
    other_data.card = other_data.card.model_copy(update={"manifest_digest": "1" * 64})
    windows = trained(2).adapted(["inference.overlap=0.25"])
    for stranger, part in ((other_channels, "dataset"), (other_data, "manifest_digest"), (windows, "inference")):
        with pytest.raises(ModelError, match=f"differ in {part}, .*; join models of one experiment"):
            ensemble_of([one, stranger], "all", "1", "logits")
