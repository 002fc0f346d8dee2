"""What `medseg infer` leaves on the disk and says of it, with a network of first weights on phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from medseg.config import validate
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.errors import ConfigError, DataError, WriteError
from medseg.experiment import ExperimentConfig
from medseg.geometry import Geometry
from medseg.io import read_image, read_label, write_nifti
from medseg.io.dicom import SeriesDescription, SeriesRule, write_series
from medseg.labels import Label, LabelSet
from medseg.reproducibility import weights_digest
from medseg.trained_model import ModelCard, TrainedModel
from medseg.volume import Volume
from pipelines.explaining import map_caption
from pipelines.infer import infer
from pipelines.model_use import ModelUse

SHAPE = (16, 18, 12)
OVERLAPPING = LabelSet(kind="overlapping", labels=(Label(name="whole/cell", value=1), Label(name="core", value=2)))
BOTH = ["nifti", "dicom-seg"]


GATED: dict[str, Any] = {"attention": [{"name": "gate"}, {"name": "squeeze_excitation", "at": ["encoder"]}]}


def made(folder: Path, dims: int, labels: LabelSet, **network: Any) -> ModelUse:
    experiment = {
        "name": "tiny",
        "data": {"manifest": "data", "fold": 0},
        "patch": {"size": [8] * dims},
        "preprocessing": {} if dims == 3 else {"orientation": None},
        "network": {"name": "unet", "spatial_dims": dims, "channels": [4, 8], **network},
        "training": {"total_steps": 1},
        "inference": {"precision": "fp32"},
    }
    torch.manual_seed(0)
    config = validate(ExperimentConfig, experiment, "test")
    weights = config.network.build(1, labels.channels).state_dict()
    dataset = {"name": "tiny", "version": "1", "licence": "none", "source": "generated", "channels": ["MR"]}
    card = {
        "name": "tiny",
        "version": "1",
        "medseg_version": "0",
        "experiment": config.model_dump(mode="json"),
        "dataset": {**dataset, "spatial_dims": dims, "labels": labels.model_dump(mode="json")},
        "manifest_digest": "0" * 64,
        "training_cases": 1,
        "total_steps": 1,
        "weights_sha256": weights_digest(weights),
    }
    TrainedModel(validate(ModelCard, card, "card"), weights).save(folder)
    return ModelUse(folder, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelUse:
    return made(tmp_path_factory.mktemp("model") / "model", 3, PHANTOM_LABELS)


def study(folder: Path, **description: Any) -> Path:
    write_series(phantom(3, SHAPE)[0], folder / "series", SeriesDescription.model_validate(description))
    return folder


def test_the_seg_read_back_is_the_nifti_voxel_for_voxel(model: ModelUse, tmp_path: Path) -> None:
    """highdicom reads the SEG; each of its pixels is brought through patient space to a voxel of the NIfTI."""
    infer(model, [study(tmp_path / "study")], tmp_path / "out", BOTH, SeriesRule())
    image: Any = nibabel.load(tmp_path / "out" / "study_label.nii.gz")
    label = np.asarray(image.dataobj)
    assert set(np.unique(label)) == {0, 1, 2}
    volume = highdicom.seg.segread(tmp_path / "out" / "study_seg.dcm").get_volume()
    index = np.argwhere(np.ones(volume.spatial_shape))
    lps = volume.map_indices_to_reference(index)
    places = nibabel.affines.apply_affine(np.linalg.inv(image.affine), lps * [-1, -1, 1])
    assert np.abs(places - np.rint(places)).max() < 1e-3
    x, y, z = np.rint(places).astype(int).T
    expected = np.zeros((*volume.spatial_shape, 2), dtype=bool)
    expected[tuple(index.T)] = label[x, y, z][:, None] == [1, 2]
    assert np.array_equal(np.asarray(volume.array, dtype=bool), expected)
    assert np.prod(volume.spatial_shape) == label.size
    assert pydicom.dcmread(tmp_path / "out" / "study_seg.dcm").SegmentationType == "BINARY"


def test_the_chosen_series_and_what_was_left_out_are_said(
    model: ModelUse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(tmp_path / "study", description="T1 head")
    (folder / "preview.jpg").write_bytes(b"picture")
    (folder / "series" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 60)
    record = infer(model, [folder], tmp_path / "out", ["nifti"], SeriesRule())
    entry, shown = record["cases"][0], capsys.readouterr().out
    uid = pydicom.dcmread(next((folder / "series").glob("*.dcm"))).get("SeriesInstanceUID", "")
    assert entry["series"].startswith("'T1 head' MR 12 slices")
    assert uid in entry["series"]
    assert f"study: series {entry['series']}" in shown
    assert entry["left_out"] == ["preview.jpg"]
    assert "study: left out, no part of the study: preview.jpg" in shown
    assert [f"study: note: {note}" in shown for note in entry["notes"]] == [True] * len(entry["notes"])
    assert "broken.dcm" in " ".join(entry["notes"])


def test_another_modality_is_refused_unless_it_is_said(model: ModelUse, tmp_path: Path) -> None:
    folder = study(tmp_path / "study", modality="CT")
    with pytest.raises(DataError, match=r"study: .*modality is CT, the model was trained on MR; .*--modality CT"):
        infer(model, [folder], tmp_path / "out", ["nifti"], SeriesRule())
    record = infer(model, [folder], tmp_path / "out", ["nifti"], SeriesRule(modality="CT"))
    assert record["failed"] == {}


def test_what_was_trained_is_not_set_and_postprocessing_is(model: ModelUse, tmp_path: Path) -> None:
    write_nifti(phantom(3, SHAPE)[0], tmp_path / "a.nii.gz")
    emptied = "postprocessing=[{name: remove_small, minimum_mm3: 1.0e+9}]"
    record = infer(
        ModelUse(model.folder, (emptied,), "cpu"), [tmp_path / "a.nii.gz"], tmp_path, ["nifti"], SeriesRule()
    )
    assert record["set"] == [emptied]
    assert not read_label(tmp_path / "a_label.nii.gz", PHANTOM_LABELS).array.any()
    with pytest.raises(ConfigError, match="fixed once a model is trained"):
        infer(ModelUse(model.folder, ("patch.size=[16, 16, 16]",)), [tmp_path], tmp_path / "x", ["nifti"], SeriesRule())
    assert not (tmp_path / "x").exists()


def test_overlapping_labels_of_a_picture_are_a_png_each(tmp_path: Path) -> None:
    """Named by value: a label's name may hold what a file's name may not."""
    use = made(tmp_path / "model", 2, OVERLAPPING)
    grey = np.random.default_rng(0).integers(0, 255, size=(9, 13), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "p.png")
    record = infer(use, [tmp_path / "p.png"], tmp_path / "out", ["nifti"], SeriesRule())
    assert [Path(file).name for file in record["cases"][0]["files"]] == ["p_label_1.png", "p_label_2.png"]
    for value in (1, 2):
        found = np.asarray(Image.open(tmp_path / "out" / f"p_label_{value}.png"))
        assert found.shape == grey.shape
        assert set(np.unique(found)) <= {0, value}


def test_a_result_that_cannot_be_written_stops_the_work_and_keeps_the_others(model: ModelUse, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.nii.gz" for name in "abc"]
    for path in paths:
        write_nifti(phantom(3, SHAPE)[0], path)
    (tmp_path / "out" / "b_label.nii.gz").mkdir(parents=True)  # a folder where the file should be
    with pytest.raises(WriteError, match=r"b_label\.nii\.gz"):
        infer(model, paths, tmp_path / "out", ["nifti"], SeriesRule())
    record = json.loads((tmp_path / "out" / "inference.json").read_text())
    assert [case["name"] for case in record["cases"]] == ["a"]
    assert list(record["failed"]) == [str(paths[1])]
    assert record["not_reached"] == [str(paths[2])]
    assert (tmp_path / "out" / "a_label.nii.gz").is_file()


def test_of_two_formats_both_are_written_or_none(model: ModelUse, tmp_path: Path) -> None:
    folder = study(tmp_path / "study")
    (tmp_path / "out" / "study_label.nii.gz").mkdir(parents=True)
    with pytest.raises(WriteError):
        infer(model, [folder], tmp_path / "out", BOTH, SeriesRule())
    assert not (tmp_path / "out" / "study_seg.dcm").exists()


def test_attention_is_written_on_the_grid_of_the_input(tmp_path: Path) -> None:
    use = made(tmp_path / "model", 3, PHANTOM_LABELS, **GATED)
    affine = np.array([[0.0, 0, 2, -9], [-1, 0, 0, 4], [0, 1.5, 0, 7], [0, 0, 0, 1]])
    array = phantom(3, SHAPE)[0].array
    image = Volume(array, Geometry(array.shape[1:], affine))
    write_nifti(image, tmp_path / "a.nii.gz")
    record = infer(use, [tmp_path / "a.nii.gz"], tmp_path / "out", ["nifti"], SeriesRule(), "attention")
    files = {Path(file).name: Path(file) for file in record["cases"][0]["files"]}
    assert set(files) == {
        "a_label.nii.gz",
        "a_attention_skip-0-gate.nii.gz",
        "a_attention_skip-0-gate.png",
        "a_attention_channels.json",
    }
    weights = read_image(files["a_attention_skip-0-gate.nii.gz"])
    assert weights.geometry.matches(image.geometry)
    assert 0 < weights.array.min() < weights.array.max() < 1
    assert Image.open(files["a_attention_skip-0-gate.png"]).width > 2 * 64
    channels = json.loads(files["a_attention_channels.json"].read_text())
    assert {title: len(each) for title, each in channels.items()} == {"encoder.0.squeeze_excitation": 4}


def test_attention_of_a_study_lies_on_its_series(tmp_path: Path) -> None:
    use = made(tmp_path / "model", 3, PHANTOM_LABELS, **GATED)
    infer(use, [study(tmp_path / "study")], tmp_path / "out", ["dicom-seg", "nifti"], SeriesRule(), "attention")
    weights = read_image(tmp_path / "out" / "study_attention_skip-0-gate.nii.gz")
    assert weights.geometry.matches(read_image(tmp_path / "out" / "study_label.nii.gz").geometry)


def test_attention_of_a_picture_is_a_tiff_on_its_pixels(tmp_path: Path) -> None:
    use = made(tmp_path / "model", 2, OVERLAPPING, **GATED)
    grey = np.random.default_rng(0).integers(0, 255, size=(9, 13), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "p.png")
    infer(use, [tmp_path / "p.png"], tmp_path / "out", ["nifti"], SeriesRule(), "attention")
    weights = read_image(tmp_path / "out" / "p_attention_skip-0-gate.tif")
    assert weights.geometry.matches(read_image(tmp_path / "p.png").geometry)
    assert weights.array.std() > 0


def test_a_network_that_weighs_channels_alone_says_once_that_it_has_no_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use = made(tmp_path / "model", 3, PHANTOM_LABELS, attention=[{"name": "squeeze_excitation", "at": ["encoder"]}])
    paths = [tmp_path / f"{name}.nii.gz" for name in "ab"]
    for path in paths:
        write_nifti(phantom(3, SHAPE)[0], path)
    infer(use, paths, tmp_path / "out", ["nifti"], SeriesRule(), "attention")
    assert capsys.readouterr().out.count("weighs channels alone") == 1
    assert not list((tmp_path / "out").glob("*.png"))
    assert len(list((tmp_path / "out").glob("*_attention_channels.json"))) == 2
    gated = made(tmp_path / "gated", 3, PHANTOM_LABELS, **GATED)
    infer(gated, paths[:1], tmp_path / "other", ["nifti"], SeriesRule(), "attention")
    assert "weighs channels alone" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("title", "caption"),
    [
        ("skip.1.gate", "skip.1.gate (stages count from the finest, 0)"),
        ("bottleneck.cbam.spatial", "bottleneck.cbam.spatial"),
        ("bottleneck.self_attention", "bottleneck.self_attention (attention received, 1 is an even share)"),
        (
            "encoder.0.self_attention",
            "encoder.0.self_attention (stages count from the finest, 0; attention received, 1 is an even share)",
        ),
    ],
)
def test_a_caption_says_how_to_read_its_map(title: str, caption: str) -> None:
    assert map_caption(title) == caption


def test_what_cannot_be_explained_is_refused_before_any_work(model: ModelUse, tmp_path: Path) -> None:
    write_nifti(phantom(3, SHAPE)[0], tmp_path / "a.nii.gz")
    for what, says in (("attention", "'unet' has no attention"), ("atention", "did you mean 'attention'")):
        with pytest.raises(ConfigError, match=says):
            infer(model, [tmp_path / "a.nii.gz"], tmp_path / "out", ["nifti"], SeriesRule(), what)
    assert not (tmp_path / "out").exists()


def test_attention_that_cannot_be_written_takes_its_labels_along(tmp_path: Path) -> None:
    use = made(tmp_path / "model", 3, PHANTOM_LABELS, **GATED)
    write_nifti(phantom(3, SHAPE)[0], tmp_path / "a.nii.gz")
    (tmp_path / "out" / "a_attention_skip-0-gate.png").mkdir(parents=True)
    with pytest.raises(WriteError):
        infer(use, [tmp_path / "a.nii.gz"], tmp_path / "out", ["nifti"], SeriesRule(), "attention")
    assert not list((tmp_path / "out").glob("a_*.nii.gz"))
