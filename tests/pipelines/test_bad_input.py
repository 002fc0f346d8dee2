"""Broken input of every kind, given as a person would give it: one or two lines say what and how, nothing is left."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
import yaml
from PIL import Image

from medseg.config import merge, validate
from medseg.data.dataset import Case, DatasetInfo
from medseg.data.manifest import Manifest, write_manifest
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.io import read_image, write_nifti
from medseg.io.dicom import SeriesDescription, write_series
from medseg.reproducibility import weights_digest
from medseg.trained_model import ModelCard, TrainedModel
from medseg.volume import digest
from pipelines import command

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPE = (12, 14, 10)
LONGEST = 800  # characters of a message without the folder of its paths: eight candidates of a study fit
EXPERIMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "tiny",
    "data": {"manifest": "data", "fold": 0},
    "patch": {"size": [8, 8, 8]},
    "network": {"name": "unet", "channels": [4, 8]},
    "training": {"total_steps": 1, "batch_size": 1, "workers": 0},
    "inference": {"precision": "fp32"},
    "tracking": {"name": "none"},
}
DATASET: dict[str, Any] = {
    "name": "tiny",
    "version": "1",
    "licence": "none",
    "source": "generated",
    "channels": ["MR"],
    "labels": PHANTOM_LABELS.model_dump(mode="json"),
}


@dataclass(frozen=True)
class Place:
    """Where a row works: models and data that are whole, and an empty folder to break copies in."""

    folder: Path
    model: Path  # 3D, one channel
    flat: Path  # 2D on pictures, one channel
    data: Path  # a data root with `manifest` in it
    real: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def infer(self, *inputs: Path | str, model: Path | None = None, more: Sequence[str] = ()) -> list[str]:
        names = [str(one) for one in inputs]
        return ["infer", str(model or self.model), *names, "--output", str(self.out), "--device", "cpu", *more]

    def train(self, config: str | Path, *more: str, root: Path | None = None) -> list[str]:
        return ["train", str(config), "--data-root", str(root or self.data), "--output", str(self.out), *more]

    def config(self, changes: dict[str, Any] | None = None, text: str | None = None) -> Path:
        """A config file for the data at hand: with changes, or of any text."""
        path = self.folder / "config.yaml"
        content = merge(merge(EXPERIMENT, {"data": {"manifest": str(self.data / "manifest")}}), changes or {})
        path.write_text(yaml.safe_dump(content) if text is None else text)
        return path

    def copy(self) -> Path:
        """A data root of its own."""
        return Path(shutil.copytree(self.data, self.folder / "data"))

    def check(self, root: Path) -> list[str]:
        return ["manifest", "check", str(root / "manifest"), "--data-root", str(root)]

    def nifti(self, name: str, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        """An image of any shape and type, as another tool would write it."""
        path = self.folder / name
        nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine).to_filename(path)
        return path

    def bytes(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def study(self, **description: Any) -> Path:
        """A DICOM study of one series of ten slices; further calls add series to it."""
        chosen = SeriesDescription.model_validate(description)
        write_series(phantom(3, SHAPE)[0], self.folder / "study" / f"series {chosen.number}", chosen)
        return self.folder / "study"

    def slices(self) -> list[Path]:
        self.study()
        return sorted((self.folder / "study").rglob("*.dcm"))


def changed_row(root: Path, line: int, **cells: str) -> Path:
    """The data root after a change to one line of its cases.csv; the header is line 1."""
    path = root / "manifest" / "cases.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    for name, value in cells.items():
        rows[line - 1][rows[0].index(name)] = value
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return root


def changed_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def edited(path: Path, **values: Any) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def trained(folder: Path, dims: int) -> Path:
    """A model with random weights."""
    torch.manual_seed(0)
    experiment = merge(EXPERIMENT, {"patch": {"size": [8] * dims}, "network": {"spatial_dims": dims}})
    dataset = {**DATASET, "spatial_dims": dims, "channels": ["MR"] if dims == 3 else ["grey"]}
    card = {
        "name": f"tiny{dims}d",
        "version": "1",
        "medseg_version": "0",
        "experiment": experiment,
        "dataset": dataset,
        "manifest_digest": "0" * 64,
        "training_cases": 1,
        "total_steps": 1,
        "weights_sha256": "0" * 64,
    }
    drafted = validate(ModelCard, card, "card")
    weights = drafted.experiment.network.build(1, PHANTOM_LABELS.channels).state_dict()
    whole = drafted.model_copy(update={"weights_sha256": weights_digest(weights)})
    return TrainedModel(whole, weights).save(folder)


def generated(root: Path) -> Path:
    """A data root of four cases in two folds, with its manifest."""
    cases = []
    for number in range(4):
        image, label = phantom(number, SHAPE)
        name = f"case{number}"
        for kind, value in (("images", image), ("labels", label)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            write_nifti(value, root / kind / f"{name}.nii.gz")
        stored = read_image(root / "images" / f"{name}.nii.gz").geometry
        digests = (digest(image.array, stored),), digest(label.array, stored)
        paths = (f"images/{name}.nii.gz",), f"labels/{name}.nii.gz"
        cases.append(Case(name, f"patient{number}", number % 2, *paths, *digests))
    write_manifest(Manifest(validate(DatasetInfo, DATASET, "d"), tuple(cases), root / "manifest"))
    return root


@dataclass(frozen=True)
class Bad:
    """A broken input: how it is made, the arguments that give it to `medseg`, and what the answer must hold."""

    name: str
    make: Callable[[Place], list[str]]
    words: tuple[str, ...] = ()
    code: int = 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return trained(folder / "model3d", 3), trained(folder / "model2d", 2), generated(folder / "data")


@pytest.fixture
def place(tmp_path: Path, whole: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    return Place(tmp_path, *whole, real=Path())


def set_config(changes: dict[str, Any]) -> Callable[[Place], list[str]]:
    return lambda p: p.train(p.config(changes))


def config_text(text: str) -> Callable[[Place], list[str]]:
    return lambda p: p.train(p.config(text=text))


CONFIGS = [
    Bad("absent", lambda p: p.train(p.folder / "absent.yaml"), ("absent.yaml", "does not exist"), 2),
    Bad("name_typo", lambda p: p.train("hippocampus_unet3"), ("'hippocampus_unet3'", "did you mean 'hip"), 2),
    Bad("folder", lambda p: p.train(p.folder), ("is a folder", "give a YAML file"), 2),
    Bad("no_yaml", config_text("name: [1, 2\n"), ("config.yaml", "not valid YAML", "line 2"), 2),
    Bad("twice", config_text("name: a\nseed: 1\nseed: 2\n"), ("config.yaml", "'seed' is given twice", "line 3"), 2),
    Bad("list", config_text("- name: a\n"), ("config.yaml", "list", "mapping", "medseg schema"), 2),
    Bad("empty", config_text(""), ("config.yaml", "medseg schema"), 2),
    Bad("binary", lambda p: p.train(p.bytes("c.yaml", b"\x89PNG\r\n\xff\x00")), ("c.yaml", "UTF-8", "byte 0"), 2),
    Bad("unknown_key", set_config({"netwrok": {}}), ("config.yaml", "'netwrok'", "did you mean 'network'"), 2),
    Bad("wrong_choice", set_config({"network": {"name": "unett"}}), ("network.name", "'unett'", "'unet'"), 2),
    Bad("wrong_type", set_config({"training": {"batch_size": "many"}}), ("training.batch_size", "'many'"), 2),
    Bad("out_of_range", set_config({"training": {"batch_size": 0}}), ("training.batch_size", "0", "greater"), 2),
    Bad("no_number", set_config({"training": {"gradient_clip": float("nan")}}), ("training.gradient_clip", "nan"), 2),
    Bad("two_lengths", set_config({"training": {"max_minutes": 1}}), ("total_steps", "max_minutes", "null"), 2),
    Bad("indivisible", set_config({"patch": {"size": [8, 9, 8]}}), ("patch.size [8, 9, 8]", "multiples of 2"), 2),
    Bad("dimensions", set_config({"patch": {"size": [8, 8]}}), ("patch.size [8, 8]", "spatial_dims is 3"), 2),
    Bad("future", set_config({"schema_version": 99}), ("config.yaml", "schema_version 99", "update medseg"), 2),
    Bad("fold", set_config({"data": {"fold": 7}}), ("manifest", "fold 7", "folds are: 0, 1")),
    Bad("manifest_typo", set_config({"data": {"manifest": "hipocampus"}}), ("'hipocampus'", "'hippocampus'"), 2),
    Bad("colour_on_grey", set_config({"augmentation": [{"name": "colour"}]}), ("'colour'", "MR", "drop it"), 2),
    Bad("set_without_equals", lambda p: p.train(p.config(), "--set", "data.fold"), ("'data.fold'", "key.subkey=v"), 2),
    Bad("set_unknown", lambda p: p.train(p.config(), "--set", "training.stepz=1"), ("training.stepz",), 2),
    Bad("set_no_yaml", lambda p: p.train(p.config(), "--set", "name=[a"), ("'name=[a'", "quote"), 2),
    Bad("set_element", lambda p: p.train(p.config(), "--set", "patch.size.5=8"), ("5", "from 0 to 2"), 2),
    Bad("device", lambda p: p.train(p.config(), "--device", "gpu"), ("'gpu'", "choose auto, cpu, cuda"), 2),
    Bad("no_such_gpu", lambda p: p.train(p.config(), "--device", "cuda:99"), ("cuda:99", "choose auto or cpu"), 2),
    Bad("format", lambda p: p.infer("x.nii", more=["--format", "niftii"]), ("'niftii'", "'nifti'"), 2),
    Bad("infer_set", lambda p: p.infer(good(p), more=["--set", "inference.flip=[0]"]), ("inference.flip", "flips"), 2),
    Bad(
        "infer_network",
        lambda p: p.infer(good(p), more=["--set", "network.channels=[8, 8]"]),
        ("network", "fixed once a model is trained"),
        2,
    ),
    Bad("fp16_on_cpu", lambda p: p.infer(good(p), more=["--set", "inference.precision=fp16"]), ("fp16", "auto"), 2),
    Bad("demo_in_file", lambda p: ["demo", "--output", str(p.bytes("f", b""))], ("--output", "/f", "folder"), 2),
    Bad("no_run", lambda p: ["resume", str(p.folder)], ("run.json", "runs/")),
    Bad(
        "output_is_file",
        lambda p: p.train(p.config(), "--output", str(p.bytes("f", b""))),
        ("--output", "/f", "choose"),
        2,
    ),
]


def good(p: Place) -> Path:
    return p.data / "images" / "case0.nii.gz"


def row(line: int = 3, **cells: str) -> Callable[[Place], list[str]]:
    return lambda p: p.check(changed_row(p.copy(), line, **cells))


def table(content: bytes) -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        root = p.copy()
        (root / "manifest" / "cases.csv").write_bytes(content)
        return p.check(root)

    return make


def dataset(old: str, new: str) -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        root = p.copy()
        changed_text(root / "manifest" / "dataset.yaml", old, new)
        return p.check(root)

    return make


def file_of_case1(path: str, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Any:
    """`train` with one file of the data changed: in its voxels, or in its affine."""

    def make(p: Place) -> list[str]:
        root = p.copy()
        image = read_image(root / path)
        array, affine = change(image.array[0], image.geometry.affine)
        nibabel.Nifti1Image(array, affine).to_filename(root / path)
        return p.train(p.config(), root=root)

    return make


def checked(make: Callable[[Place], list[str]]) -> Callable[[Place], list[str]]:
    """The same data given to `manifest check`."""

    def other(p: Place) -> list[str]:
        make(p)
        return p.check(p.folder / "data")

    return other


def nan(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    array = array.astype(np.float32)
    array[0, 0, 0] = np.nan
    return array, affine


def stranger(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    array = array.copy()
    array[0, 0, 0] = 9
    return array, affine


def shifted(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    affine = affine.copy()
    affine[0, 3] += 2
    return array, affine


def cropped(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return array[:-1], affine


def removed(path: str) -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        root = p.copy()
        (root / path).unlink()
        return p.train(p.config({"data": {"manifest": str(root / "manifest")}}), root=root)

    return make


def linked_out(p: Place) -> list[str]:
    root = p.copy()
    path = root / "images" / "case1.nii.gz"
    path.rename(p.folder / "elsewhere.nii.gz")
    path.symlink_to(p.folder / "elsewhere.nii.gz")
    return p.train(p.config(), root=root)


def other_labels(p: Place) -> list[str]:
    root = p.copy()
    changed_text(root / "manifest" / "dataset.yaml", "value: 2", "value: 3")
    return ["evaluate", str(p.model), str(root / "manifest"), "--data-root", str(root), "--output", str(p.out)]


def evaluated(*more: str) -> Callable[[Place], list[str]]:
    return lambda p: [
        *("evaluate", str(p.model), str(p.data / "manifest"), "--data-root", str(p.data)),
        *("--output", str(p.out), *more),
    ]


def built(*more: str) -> Callable[[Place], list[str]]:
    return lambda p: ["manifest", "build", str(p.folder / "here"), "--output", str(p.out), *more]


LABEL, IMAGE = "labels/case1.nii.gz", "images/case1.nii.gz"
MANIFESTS = [
    Bad("absent", lambda p: p.check(p.folder / "nowhere"), ("nowhere", "does not exist"), 2),
    Bad("no_dataset", removed("manifest/dataset.yaml"), ("manifest", "dataset.yaml", "medseg manifest build")),
    Bad("no_table", removed("manifest/cases.csv"), ("cases.csv", "cannot be read", "give the folder")),
    Bad("empty_table", table(b""), ("cases.csv", "is empty", "case_id,patient_id,fold")),
    Bad("header_only", table(b"case_id,patient_id,fold,image,label\n"), ("cases.csv", "no case", "manifest build")),
    Bad("latin_1", table("case_id,Müller".encode("latin-1")), ("cases.csv", "byte 9", "save it as UTF-8")),
    Bad("nul", table(b"case_id\0\n"), ("cases.csv", "line 1", "NUL")),
    Bad("open_quote", table(b'case_id,patient_id\n"a,b\n'), ("cases.csv", "line 2", "quotes")),
    Bad("unknown_column", row(1, patient_id="patient"), ("cases.csv", "line 1", "'patient'", "'patient_id'")),
    Bad("case_twice", row(case_id="case0"), ("cases.csv", "line 3", "'case0'", "line 2")),
    Bad("case_id", row(case_id="a/b"), ("cases.csv", "line 3", "'a/b'", "use letters")),
    Bad("escaping", row(image="../secret.nii.gz"), ("line 3", "'../secret.nii.gz'", "below it")),
    Bad("absolute", row(label="/etc/passwd"), ("line 3", "'/etc/passwd'", "relative to the data root")),
    Bad("fold_no_number", row(fold="one"), ("line 3", "fold 'one'", "whole number")),
    Bad("patient_in_two_folds", row(patient_id="patient0"), ("line 3", "'patient0'", "fold 1", "one fold")),
    Bad("digest_no_sha", row(image_sha256="abc"), ("line 3", "image_sha256 'abc'", "leave it empty")),
    Bad("changed", row(image_sha256="0" * 64), ("case1", IMAGE, "changed", "restore")),
    Bad("label_value_0", dataset("value: 2", "value: 0"), ("dataset.yaml", "labels.labels.1.value", "0"), 2),
    Bad("label_twice", dataset("name: tail", "name: head"), ("dataset.yaml", "head", "twice"), 2),
    Bad("dataset_key", dataset("licence:", "license:"), ("dataset.yaml", "'license'", "did you mean 'licence'"), 2),
    Bad(
        "dataset_future",
        dataset("schema_version: 1", "schema_version: 2"),
        ("dataset.yaml", "schema_version 2", "update"),
        2,
    ),
    Bad("missing_file", removed(IMAGE), ("case1", IMAGE, "--data-root")),
    Bad("link_out", linked_out, ("case1", IMAGE, "outside the data root", "copy")),
    Bad("root_absent", lambda p: p.train(p.config(), root=p.folder / "none"), ("none", "--data-root")),
    Bad("root_is_file", lambda p: p.train(p.config(), root=p.bytes("f", b"")), ("f is no folder", "--data-root")),
    Bad("no_root", lambda p: ["train", str(p.config()), "--output", str(p.out)], ("'tiny'", "--data-root")),
    Bad("label_of_another_grid", file_of_case1(LABEL, cropped), ("case1", LABEL, "12 x 14 x 10", "resample")),
    Bad("label_elsewhere", file_of_case1(LABEL, shifted), ("case1", LABEL, "2 mm apart", "resample")),
    Bad("label_value", file_of_case1(LABEL, stranger), ("case1.nii.gz", "9", "[0, 1, 2]", "dataset.yaml")),
    Bad("voxels", file_of_case1(IMAGE, nan), ("images/case1.nii.gz", "1 of 1680", "NaN", "exclude")),
    Bad("check_grid", checked(file_of_case1(LABEL, cropped)), ("case1", LABEL, "12 x 14 x 10", "resample")),
    Bad("check_value", checked(file_of_case1(LABEL, stranger)), ("case1", LABEL, "9", "dataset.yaml")),
    Bad("check_voxels", checked(file_of_case1(IMAGE, nan)), ("case1", IMAGE, "NaN")),
    Bad("other_labels", other_labels, ("manifest", "[0, 1, 3]", "[0, 1, 2]")),
    Bad("evaluate_fold", evaluated("--fold", "5"), ("fold 5", "folds are: 0, 1")),
    Bad("build_nothing", built(), ("here",)),
    Bad("build_layout", built("--layout", "nnunett"), ("'nnunett'", "'nnunet'"), 2),
    Bad("build_absent", lambda p: ["manifest", "build", "nowhere", "--output", str(p.out)], ("nowhere",)),
]


def voxels(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype=dtype)


def header_of(array: np.ndarray, **values: Any) -> Callable[[Place], list[str]]:
    """An image whose header is changed after the fact."""

    def make(p: Place) -> list[str]:
        path = p.nifti("image.nii", array)
        header = nibabel.Nifti1Header(path.read_bytes()[:348])
        for name, value in values.items():
            header[name] = value
        return p.infer(p.bytes("image.nii", header.binaryblock + path.read_bytes()[348:]))

    return make


def stored(name: str, content: Callable[[Place], bytes]) -> Callable[[Place], list[str]]:
    return lambda p: p.infer(p.bytes(name, content(p)))


def array(*shape: int, dtype: Any = np.float32) -> Callable[[Place], list[str]]:
    return lambda p: p.infer(p.nifti("image.nii.gz", voxels(*shape, dtype=dtype)))


MHA_AWAY = (
    b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n"
    b"ElementDataFile = /etc/passwd\n"
)
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
IMAGES = [
    Bad("absent", lambda p: p.infer(p.folder / "absent.nii.gz"), ("absent.nii.gz", "does not exist", "give"), 2),
    Bad("empty", stored("image.nii.gz", lambda p: b""), ("image.nii.gz", "is empty", "fetch")),
    Bad("empty_without_name", stored("image", lambda p: b""), ("image", "is empty", "fetch")),
    Bad("truncated", stored("a.nii.gz", lambda p: good(p).read_bytes()[:-300]), ("a.nii.gz", "fetch")),
    Bad("truncated_bare", stored("a.nii", lambda p: gzip.decompress(good(p).read_bytes())[:-1]), ("a.nii", "byte")),
    Bad("bad_gzip", stored("a.nii.gz", lambda p: b"\x1f\x8b" + b"\0" * 50), ("a.nii.gz", "fetch")),
    Bad("text", stored("notes.nii.gz", lambda p: b"to do: " * 100), ("notes.nii.gz", "NIfTI", "give")),
    Bad("other_extension", stored("a.gipl", lambda p: good(p).read_bytes()[5:]), ("a.gipl", "no known format")),
    Bad("gzip_of_dicom", lambda p: p.infer(p.bytes("a.gz", gzip.compress(p.slices()[0].read_bytes()))), ("gunzip",)),
    Bad("wrong_extension", stored("a.png", lambda p: good(p).read_bytes()), ("a.png", "picture", "give")),
    Bad("not_finite", lambda p: p.infer(p.nifti("a.nii", nan(voxels(*SHAPE), np.eye(4))[0])), ("a.nii", "NaN")),
    Bad("complex", array(8, 8, 8, dtype=np.complex64), ("image.nii.gz", "complex", "magnitude")),
    Bad("five_axes", array(8, 8, 8, 2, 2), ("image.nii.gz", "(8, 8, 8, 2, 2)", "store one")),
    Bad("two_channels", array(8, 8, 8, 2), ("image.nii.gz", "2 channels", "needs 1 (MR)")),
    Bad("rgb", lambda p: p.infer(p.nifti("a.nii", np.zeros(SHAPE, RGB))), ("a.nii", "3 channels", "1 (MR)")),
    Bad("flat", array(8, 8), ("image.nii.gz", "2 dimensions", "3")),
    Bad("header_without_data", header_of(voxels(8, 8, 8), magic=b"ni1"), ("image.nii", "pair", ".img")),
    Bad("boastful", header_of(voxels(8, 8, 8), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), ("image.nii", "short")),
    Bad("no_place", header_of(voxels(8, 8, 8), srow_x=[0, 0, 0, 0], sform_code=1), ("image.nii", "inverted")),
    Bad("data_type", header_of(voxels(8, 8, 8), datatype=-951), ("image.nii", "-951", "header")),
    Bad("no_pair", stored("a.hdr", lambda p: gzip.decompress(good(p).read_bytes())[:348]), ("a.hdr", "a.img")),
    Bad("no_dicom_for_seg", lambda p: p.infer(good(p), more=["--format", "dicom-seg"]), ("case0", "dicom-seg"), 2),
    Bad("nrrd", stored("a.nrrd", lambda p: b"NRRD0004\ntype: float\n"), ("a.nrrd",)),
    Bad("mha", stored("a.mha", lambda p: b"ObjectType = Image\nNDims = 3\n"), ("a.mha",)),
    Bad("mha_points_away", stored("a.mha", lambda p: MHA_AWAY), ("a.mha", "passwd")),
    Bad("out_is_file", lambda p: [*p.infer(good(p)), "--output", str(p.bytes("f", b""))], ("/f", "--output"), 2),
    Bad("long_name", lambda p: p.infer("x" * 300 + ".nii"), ("does not exist", "give image files"), 2),
]


def changed_slice(number: int, **values: Any) -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        edited(p.slices()[number], **values)
        return p.infer(p.folder / "study")

    return make


def all_slices(**values: Any) -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        for path in p.slices():
            edited(path, **values)
        return p.infer(p.folder / "study")

    return make


def missing_slice(p: Place) -> list[str]:
    p.slices()[4].unlink()
    return p.infer(p.folder / "study")


def doubled_slice(p: Place) -> list[str]:
    paths = p.slices()
    copy = Path(shutil.copy(paths[4], paths[4].with_name("again.dcm")))
    pixels = pydicom.dcmread(copy).pixel_array + 1
    edited(copy, SOPInstanceUID="1.2.3.4", PixelData=pixels.tobytes())
    return p.infer(p.folder / "study")


def truncated_slice(p: Place) -> list[str]:
    path = p.slices()[4]
    path.write_bytes(path.read_bytes()[:-100])
    return p.infer(p.folder / "study")


def two_series(*more: str) -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        p.study(number=1, description="Body")
        p.study(number=2, description="HippoCrop")
        return p.infer(p.folder / "study", more=more)

    return make


def seg_with_bad_identity(p: Place) -> list[str]:
    for path in p.slices():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "x" * 200
        dataset.save_as(path)
    return p.infer(p.folder / "study", more=["--format", "nifti,dicom-seg"])


def not_dicom(p: Place) -> list[str]:
    (p.folder / "study").mkdir()
    p.bytes("study/notes.txt", b"nothing here")
    return p.infer(p.folder / "study")


STUDIES = [
    Bad("empty_folder", lambda p: p.infer(p.folder / "here"), ("here", "no DICOM", "give the folder")),
    Bad("no_dicom", not_dicom, ("study", "no DICOM", "give the folder")),
    Bad("ambiguous", two_series(), ("study", "2 series", "Body", "HippoCrop", "--series")),
    Bad("rule_key", two_series("--series", "orientaton=axial"), ("--series", "orientaton", "'orientation'"), 2),
    Bad("rule_value", two_series("--series", "orientation=oblique"), ("orientation", "'oblique'", "axial"), 2),
    Bad("rule_fits_none", two_series("--series", "*T2*"), ("study", "*T2*", "Body", "HippoCrop")),
    Bad("modality_fits_none", two_series("--modality", "CT"), ("study", "CT", "MR")),
    Bad("missing_slice", missing_slice, ("gap", "2")),
    Bad("two_at_a_place", doubled_slice, ("again.dcm", "different images", "keep the right one")),
    Bad("truncated", truncated_slice, ("0005.dcm",)),
    Bad("blank_uid", all_slices(SeriesInstanceUID=""), ("series UID", "restore")),
    Bad("mixed_spacing", changed_slice(4, PixelSpacing=["2", "2"]), ("study",)),
    Bad("mixed_size", changed_slice(4, Rows=3), ("study",)),
    Bad("no_spacing", all_slices(PixelSpacing=None), ("study", "PixelSpacing")),
    Bad("no_pixels", lambda p: p.infer(p.bytes("a.dcm", b"\0" * 128 + b"DICM" + b"\0" * 60)), ("a.dcm",)),
    Bad("no_dicm", lambda p: p.infer(p.bytes("a.dcm", b"hello")), ("a.dcm",)),
    Bad("seg_refused", seg_with_bad_identity, ("PatientID",)),
]


def picture(image: np.ndarray, name: str = "a.png") -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        Image.fromarray(image).save(p.folder / name)
        return p.infer(p.folder / name, model=p.flat)

    return make


def damaged_png(p: Place) -> bytes:
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(p.folder / "whole.png")
    content = (p.folder / "whole.png").read_bytes()
    return content[: len(content) // 2]


def pages(p: Place) -> list[str]:
    page = Image.fromarray(np.zeros((16, 16), np.uint8))
    page.save(p.folder / "a.tif", save_all=True, append_images=[page])
    return p.infer(p.folder / "a.tif", model=p.flat)


def pairs(label: np.ndarray, ending: str = ".png") -> Callable[[Place], list[str]]:
    """`manifest check` of two pictures with labels, the second of which is broken."""

    def make(p: Place) -> list[str]:
        root = p.folder / "pictures"
        for kind in ("images", "labels", "manifest"):
            (root / kind).mkdir(parents=True)
        rows = ["case_id,patient_id,fold,image,label"]
        for number, name in enumerate(("p0.png", f"p1{ending}")):
            Image.fromarray((number + np.eye(16)).astype(np.uint8)).save(root / "images" / f"p{number}.png")
            Image.fromarray(label if number else np.eye(16, dtype=np.uint8)).save(root / "labels" / name)
            rows.append(f"p{number},p{number},{number},images/p{number}.png,labels/{name}")
        (root / "manifest" / "cases.csv").write_text("\n".join(rows))
        flat = {**DATASET, "spatial_dims": 2, "channels": ["grey"]}
        (root / "manifest" / "dataset.yaml").write_text(yaml.safe_dump(flat))
        return p.check(root)

    return make


GREYS = np.linspace(0, 255, 256).reshape(16, 16).astype(np.uint8)
PICTURES = [
    Bad("no_picture", lambda p: p.infer(p.bytes("a.png", b"GIF89a"), model=p.flat), ("a.png", "no picture", "give")),
    Bad("corrupt", lambda p: p.infer(p.bytes("a.png", damaged_png(p)), model=p.flat), ("a.png", "picture")),
    Bad("colours", picture(np.zeros((16, 16, 3), np.uint8)), ("a.png", "3 channels", "1 (grey)")),
    Bad("transparent", picture(np.zeros((16, 16, 4), np.uint8)), ("a.png", "alpha", "without alpha")),
    Bad("pages", pages, ("a.tif", "2 pages", "one picture a file")),
    Bad("to_3d_model", lambda p: [*picture(GREYS)(p)[:1], str(p.model), *picture(GREYS)(p)[2:]], ("a.png", "2")),
    Bad("volume_to_2d", lambda p: p.infer(good(p), model=p.flat), ("case0.nii.gz", "3 dimensions", "2")),
    Bad("interpolated_label", pairs(GREYS), ("p1", "labels/p1.png")),
    Bad("colour_label", pairs(np.zeros((16, 16, 3), np.uint8)), ("p1", "labels/p1.png", "one integer")),
    Bad("lossy_label", pairs(np.eye(16, dtype=np.uint8), ".jpg"), ("p1", "labels/p1.jpg", "PNG")),
]


def broken_model(change: Callable[[Path], object]) -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        model = Path(shutil.copytree(p.model, p.folder / "model"))
        change(model)
        return p.infer(good(p), model=model)

    return make


def other_weights(model: Path) -> None:
    torch.save({"w": torch.zeros(3)}, model / "weights.pt")
    card = json.loads((model / "model.json").read_text())
    card["weights_sha256"] = weights_digest({"w": torch.zeros(3)})
    (model / "model.json").write_text(json.dumps(card))


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Stranger:
    """What a pickle could hold."""


MODELS = [
    Bad("absent", lambda p: p.infer(good(p), model=p.folder / "none"), ("none", "model.json", "give")),
    Bad("no_model", lambda p: p.infer(good(p), model=p.folder), ("model.json is missing", "give a run")),
    Bad("file", lambda p: p.infer(good(p), model=good(p)), ("case0", "no trained model", "give a run")),
    Bad("no_weights", broken_model(lambda m: (m / "weights.pt").unlink()), ("weights.pt", "copy")),
    Bad("half_weights", broken_model(lambda m: halved(m / "weights.pt")), ("weights.pt", "damaged", "copy")),
    Bad("text_weights", broken_model(lambda m: (m / "weights.pt").write_text("x")), ("weights.pt", "copy")),
    Bad("pickle", broken_model(lambda m: torch.save({"w": Stranger()}, m / "weights.pt")), ("weights.pt",)),
    Bad("no_dictionary", broken_model(lambda m: torch.save([1], m / "weights.pt")), ("weights.pt", "copy")),
    Bad("no_tensors", broken_model(lambda m: torch.save({"w": 1}, m / "weights.pt")), ("weights.pt", "copy")),
    Bad("changed_weights", broken_model(lambda m: torch.save({"w": torch.ones(1)}, m / "weights.pt")), ("digest",)),
    Bad("other_network", broken_model(other_weights), ("tiny3d", "'unet'", "copy")),
    Bad("half_card", broken_model(lambda m: halved(m / "model.json")), ("model.json", "copy")),
    Bad("list_card", broken_model(lambda m: (m / "model.json").write_text("[]")), ("model.json", "list", "copy")),
    Bad(
        "newer_card",
        broken_model(lambda m: changed_text(m / "model.json", '"schema_version": 1', '"schema_version": 9')),
        ("model.json", "schema_version", "9", "update medseg"),
    ),
    Bad(
        "card_key",
        broken_model(lambda m: changed_text(m / "model.json", '"manifest_digest"', '"manifest_digits"')),
        ("model.json", "'manifest_digits'", "'manifest_digest'", "copy"),
    ),
]


ROWS = {
    f"{kind}-{bad.name}": bad
    for kind, rows in (
        ("config", CONFIGS),
        ("manifest", MANIFESTS),
        ("image", IMAGES),
        ("study", STUDIES),
        ("picture", PICTURES),
        ("model", MODELS),
    )
    for bad in rows
}


def answer(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of `medseg`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["medseg", *arguments])
    with pytest.raises(SystemExit) as end:
        command.main()
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.exists() else set()


def require_a_clear_answer(bad: Bad, place: Place, code: object, out: str, err: str) -> None:
    """One or two lines on standard error, with the words; nothing written but the record of what failed."""
    assert code == bad.code, err
    assert [word for word in bad.words if word not in out + err] == [], err
    lines = err.strip().splitlines()
    assert lines[0].startswith("error: "), err
    assert len(lines) <= 2, err
    assert "Traceback" not in err
    short = err.replace(str(place.folder), "").replace(str(place.data.parent), "").replace(str(place.real), "")
    assert len(short) < LONGEST, short
    assert files_in(place.out) <= {"inference.json"}
    if (place.out / "inference.json").exists():
        assert json.loads((place.out / "inference.json").read_text())["cases"] == []
    assert os.listdir() == []


@pytest.mark.parametrize("bad", ROWS.values(), ids=ROWS.keys())
def test_bad_input_is_answered_in_two_lines_and_leaves_nothing(
    bad: Bad, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_a_clear_answer(bad, place, *answer(bad.make(place), monkeypatch, capsys))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config-unknown_key", "config-device", "image-truncated", "study-missing_slice"])
def test_a_process_of_its_own_answers_the_same(name: str, place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.command", *ROWS[name].make(place)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    require_a_clear_answer(ROWS[name], place, done.returncode, done.stdout, done.stderr)


def test_bad_inputs_among_good_ones_are_named_and_the_good_are_segmented(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [place.bytes("empty.nii.gz", b""), place.bytes("strange.xyz", b"hello"), place.folder / "here"]
    arguments = place.infer(good(place), *bad, place.study(), more=["--json"])
    code, out, err = answer(arguments, monkeypatch, capsys)
    assert code == 1
    assert json.loads(out)["kind"] == "DataError"
    assert "3 of 5 inputs" in err
    assert [path.name for path in bad if str(path) not in err] == []
    record = json.loads((place.out / "inference.json").read_text())
    assert list(record["failed"]) == [str(path) for path in bad]
    assert [Path(case["input"]) for case in record["cases"]] == [good(place), place.folder / "study"]
    assert files_in(place.out) == {"inference.json", "case0_label.nii.gz", "study_label.nii.gz"}
    assert read_image(place.out / "case0_label.nii.gz").geometry.shape == SHAPE


def test_a_training_that_is_refused_late_leaves_no_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = answer(file_of_case1(IMAGE, nan)(place), monkeypatch, capsys)
    assert (code, files_in(place.out)) == (1, set()), err
    code, _, err = answer(place.train(place.config()), monkeypatch, capsys)
    assert code == 0, err
    assert "model/model.json" in {name.split("/", 1)[-1] for name in files_in(place.out)}


def real(*parts: str, model: str = "model", more: Sequence[str] = ()) -> Callable[[Place], list[str]]:
    return lambda p: p.infer(p.real.joinpath(*parts), model=getattr(p, model), more=more)


def unpacked(*parts: str) -> Callable[[Place], list[str]]:
    def make(p: Place) -> list[str]:
        with zipfile.ZipFile(p.real.joinpath(*parts)) as archive:
            archive.extractall(p.folder / "unpacked")
        return p.infer(p.folder / "unpacked")

    return make


def distributed_labels(p: Place) -> list[str]:
    """Lung labels that were resized with interpolation."""
    path = p.folder / "manifest"
    path.mkdir()
    name = "MCUCXR_0001_0.png"
    row = f"a,a,0,cxr_montgomery/images/{name},cxr_montgomery/masks_as_distributed/{name}\n"
    (path / "cases.csv").write_text("case_id,patient_id,fold,image,label\n" + row)
    (path / "dataset.yaml").write_text(yaml.safe_dump({**DATASET, "spatial_dims": 2, "channels": ["grey"]}))
    return ["manifest", "check", str(path), "--data-root", str(p.real)]


NIFTI, DICOM, EDGE = "bad_input_nifti", "bad_input_dicom", "dicom_edge_cases"
FUZZ = "nifti-rs/fuzz_artifacts/crash-"
REAL = [
    Bad("fuzz-1", real(NIFTI, f"{FUZZ}08123ef33416bd6f0c5fa63d44b681b8581d62a0"), ()),
    Bad("fuzz-2", real(NIFTI, f"{FUZZ}98aa054390f8d3f932f190dc22ef62c6ff2d6619"), ()),
    Bad("fuzz-3", real(NIFTI, f"{FUZZ}d03c6346fe83a026738f6b8cd2a9335a3f8cb158"), ()),
    Bad("empty", real(NIFTI, "nifti-jl/empty.nii.gz"), ("empty.nii.gz", "fetch")),
    Bad("no_data", real(NIFTI, "nifti-rs/avg152T1_LR_nifti.hdr.gz"), ("avg152T1_LR_nifti", "img.gz is missing")),
    Bad("analyze", real(NIFTI, "nifti-test-data/rand.hdr"), ("rand.hdr",)),
    Bad("no_nifti", real(NIFTI, "nifti-reader-js/not-nifti.nii"), ("not-nifti.nii", "give a NIfTI file")),
    Bad("five_axes", real(NIFTI, "nifti-reader-js/5D_small.nii"), ("5D_small.nii", "3 channels", "1 (MR)")),
    Bad("not_finite", real(NIFTI, "itksnap/nan_converted.nii.gz"), ("nan_converted", "1592 of", "replace")),
    Bad("complex", real(NIFTI, "nifti-rs/complex/complex32.nii"), ("complex32.nii", "magnitude")),
    Bad("colours", real(NIFTI, "nifti-rs/rgb/3D.nii"), ("3D.nii", "3 channels", "1 (MR)")),
    Bad("colours_4d", real(NIFTI, "nifti-rs/rgb/4D.nii"), ("4D.nii", "2 colour volumes", "one a file")),
    Bad("cifti", real(NIFTI, "nibabel/row_major.dconn.nii"), ("dconn.nii", "CIFTI", "give a volume")),
    Bad("minc", real(NIFTI, "nibabel/minc2_baddim.mnc"), ("minc2_baddim.mnc", "convert it to")),
    Bad("gipl", real(NIFTI, "itksnap/MRIcrop-seg.gipl.gz"), ("MRIcrop-seg.gipl.gz", "convert it to")),
    Bad("system_file", real(NIFTI, "panimg/referring_to_system_file.mhd"), ("outside its own folder", "trust")),
    Bad("nrrd", real(NIFTI, "panimg/nrrd/image10x11x12_unsupported_version.nrrd"), ("NRRD1004",)),
    Bad("mha_5d", real(NIFTI, "panimg/image4x4x4x4x4.mha"), ("image4x4x4x4x4.mha", "axes")),
    Bad("report", real(DICOM, "pydicom/reportsi.dcm"), ("reportsi.dcm",)),
    Bad("bad_vr", real(DICOM, "pydicom/badVR.dcm"), ("badVR.dcm",)),
    Bad("no_meta", real(DICOM, "pydicom/ExplVR_BigEndNoMeta.dcm"), ("ExplVR_BigEndNoMeta.dcm",)),
    Bad("no_image", real(DICOM, "pydicom/UN_sequence.dcm"), ("UN_sequence.dcm",)),
    Bad("gzipped", real(DICOM, "pydicom/zipMR.gz"), ("zipMR.gz", "gzip", "unpack it")),
    Bad("codec", real(DICOM, "pydicom/JPGExtended.dcm"), ("JPGExtended.dcm",)),
    Bad("cut_codestream", real(DICOM, "pydicom/JPEG2000-embedded-sequence-delimiter.dcm"), ("JPEG2000",)),
    Bad("archive", real(DICOM, "panimg/same_name.zip"), ("same_name.zip", "convert it to")),
    Bad("two_at_a_place", unpacked(DICOM, "dicom_numpy/dupe-positions.zip"), ("unpacked",)),
    Bad("echoes", real(DICOM, "dcmstack_multi_echo"), ("dcmstack_multi_echo", "echo")),
    Bad("blank_uids", real(EDGE, "ct_j2k_blank_uids"), ("ct_j2k_blank_uids", "UID", "restore")),
    Bad("gap", real(EDGE, "failing/sliceincrement/001"), ("001", "gap", "fetch")),
    Bad("tilted", real(EDGE, "failing/gantrytilting/001"), ("gantrytilting/001", "tilt")),
    Bad("orientations", real(EDGE, "failing/sliceorientation/001"), ("sliceorientation/001",)),
    Bad("no_volume", real(EDGE, "failing/notavolume/001"), ("notavolume/001",)),
    Bad("several_series", real("dicom_hippocampus"), ("dicom_hippocampus", "--series")),
    Bad("rule", real("dicom_hippocampus", more=["--series", "*Spleen*"]), ("*Spleen*", "there are")),
    Bad("rgb_picture", real("nuclei2d/images", model="flat"), ("00071198d059.png", "3 channels", "1 (grey)")),
    Bad("xray_labels", distributed_labels, ("masks_as_distributed/MCUCXR_0001_0.png", "interpolated", "save")),
    Bad("unmatched", lambda p: built_from(p, "hippocampus_quirks"), ("hippocampus_118", "no label", "--skip"), 1),
]


def built_from(p: Place, name: str) -> list[str]:
    return ["manifest", "build", str(p.real / name), "--output", str(p.out)]


@pytest.mark.real
@pytest.mark.parametrize("bad", REAL, ids=[bad.name for bad in REAL])
def test_bad_real_input_is_answered_in_two_lines_and_leaves_nothing(
    bad: Bad, place: Place, real_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = replace(place, real=real_data)
    require_a_clear_answer(bad, here, *answer(bad.make(here), monkeypatch, capsys))


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("folder", [NIFTI, DICOM])
def test_no_file_of_the_bad_ones_stops_the_others(
    folder: str, place: Place, real_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(path for path in (real_data / folder).rglob("*") if path.is_file() and path.suffix != ".md")
    quick = ["--set", "inference.overlap=0"]
    code, _, _ = answer(place.infer(*files, more=quick), monkeypatch, capsys)
    assert code == 1
    record = json.loads((place.out / "inference.json").read_text())
    assert len(record["cases"]) + len(record["failed"]) == len(files)
    assert record["cases"]
    for path, reason in record["failed"].items():
        assert Path(path).name in reason
        assert "\n" not in reason
        assert len(reason) - len(path) < LONGEST
    written = {Path(file).name for case in record["cases"] for file in case["files"]}
    assert files_in(place.out) == {"inference.json", *written}
