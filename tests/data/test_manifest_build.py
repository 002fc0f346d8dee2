"""Every layout becomes the manifest that its files say, and no file is dropped silently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.config import validate
from medseg.data.cases import read_case
from medseg.data.file_names import is_image, stem
from medseg.data.label_form import label_form_problem, read_label_values
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.data.manifest_build import LAYOUTS
from medseg.data.manifest_build.assemble import BuildOptions, BuildResult, build_manifest, detect_layout
from medseg.errors import ManifestError
from medseg.io.formats import EXTENSIONS


def _nifti(path: Path, values: Sequence[int] = (), shape: tuple[int, ...] = (4, 5, 6), dtype: type = np.int16) -> None:
    """A phantom: zeros, with the first voxels set to `values`; without values an image that is like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array: np.ndarray = np.zeros(shape, dtype)
    seed = sum(path.as_posix().encode())
    array.flat[: len(values) or array.size] = values or np.random.default_rng(seed).integers(0, 99, array.size)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


def _png(path: Path, values: Sequence[int] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((7, 9), np.uint8)
    array.flat[: len(values) or array.size] = values or np.random.default_rng(len(str(path))).integers(0, 9, array.size)
    Image.fromarray(array).save(path)


def _build(source: Path, layout: str | None = None, skip: bool = False, folds: int = 2, **settings: Any) -> BuildResult:
    chosen = detect_layout(source) if layout is None else LAYOUTS[layout](name=layout)
    chosen = validate(type(chosen), {**chosen.model_dump(), **settings}, "test")
    result = build_manifest(source, chosen, BuildOptions(folds=folds, skip_unmatched=skip))
    for case in result.manifest.cases:
        read_case(result.manifest, case, source, verify=True)
    return result


def _files(manifest: Manifest) -> dict[str, tuple[str | None, ...]]:
    return {case.id: (*case.images, case.label) for case in manifest.cases}


def test_every_layout_in_the_catalogue_names_itself_and_says_what_it_is() -> None:
    assert set(LAYOUTS.names()) >= {"msd", "nnunet", "bids", "folders", "case_folders"}
    for name, entry in LAYOUTS:
        assert entry(name=name).name == name
        assert entry.__doc__


@pytest.mark.parametrize("name", LAYOUTS.names())
def test_empty_folder_is_recognised_by_no_layout(tmp_path: Path, name: str) -> None:
    assert not LAYOUTS[name](name=name).recognises(tmp_path)


def test_unknown_layout_is_refused_with_the_known(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(ManifestError, match=r"folders: raw.*nnunet, msd, bids, folders, case_folders"):
        detect_layout(tmp_path)
    with pytest.raises(ManifestError, match="is no folder"):
        detect_layout(tmp_path / "absent")


class TestMsd:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        entries = []
        for number in range(3):
            _nifti(tmp_path / "imagesTr" / f"h_{number}.nii.gz")
            _nifti(tmp_path / "labelsTr" / f"h_{number}.nii.gz", (1, 2))
            entries.append({"image": f"./imagesTr/h_{number}.nii.gz", "label": f"./labelsTr/h_{number}.nii.gz"})
        (tmp_path / "imagesTr" / "._h_0.nii.gz").write_bytes(b"junk")
        content = {
            "name": "Hippocampus",
            "licence": "CC-BY-SA 4.0",
            "relase": "1.0",
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
            "training": entries,
            "test": ["./imagesTs/h_9.nii.gz"],
        }
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        return tmp_path

    def test_dataset_json_says_all(self, source: Path) -> None:
        result = _build(source)
        dataset = result.manifest.dataset
        assert [(label.name, label.value) for label in dataset.labels.labels] == [("Anterior", 1), ("Posterior", 2)]
        assert (dataset.channels, dataset.licence, dataset.version) == (("MRI",), "CC-BY-SA 4.0", "1.0")
        assert _files(result.manifest)["h_1"] == ("imagesTr/h_1.nii.gz", "labelsTr/h_1.nii.gz")
        assert any("._h_0.nii.gz" in note for note in result.notes)
        assert any("1 test images" in note for note in result.notes)

    def test_listed_but_absent_and_unlisted_files_are_named(self, source: Path) -> None:
        (source / "labelsTr" / "h_1.nii.gz").unlink()
        _nifti(source / "imagesTr" / "h_7.nii.gz")
        with pytest.raises(ManifestError, match=r"labelsTr/h_1\.nii\.gz is listed.*imagesTr/h_7\.nii\.gz is not"):
            _build(source)
        assert list(_files(_build(source, skip=True).manifest)) == ["h_0", "h_2"]

    def test_value_without_a_name_is_refused(self, source: Path) -> None:
        _nifti(source / "labelsTr" / "h_1.nii.gz", (1, 5))
        with pytest.raises(ManifestError, match=r"labelsTr/h_1\.nii\.gz holds the values 5"):
            _build(source)

    def test_path_out_of_the_folder_is_refused(self, source: Path) -> None:
        text = (source / "dataset.json").read_text().replace("./imagesTr/h_1", "../imagesTr/h_1")
        (source / "dataset.json").write_text(text)
        with pytest.raises(ManifestError, match=r"'\.\.'"):
            _build(source)


class TestNnunet:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for number in range(3):
            for channel in range(2):
                _nifti(tmp_path / "imagesTr" / f"b_{number}_{channel:04d}.nii.gz")
            _nifti(tmp_path / "labelsTr" / f"b_{number}.nii.gz", (1, 2, 3, 4))
        content = {
            "channel_names": {"0": "T1", "1": "T2 FLAIR"},
            "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4},
            "file_ending": ".nii.gz",
        }
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        return tmp_path

    def test_numbered_files_are_channels_and_lists_are_regions(self, source: Path) -> None:
        manifest = _build(source).manifest
        labels = manifest.dataset.labels
        assert manifest.dataset.channels == ("T1", "T2_FLAIR")
        assert labels.names == ["label_1", "label_2", "enhancing"]
        assert labels.regions == {"whole": ("label_1", "label_2", "enhancing"), "core": ("label_2", "enhancing")}
        assert labels.ignore == 4
        expected = ("imagesTr/b_0_0000.nii.gz", "imagesTr/b_0_0001.nii.gz", "labelsTr/b_0.nii.gz")
        assert _files(manifest)["b_0"] == expected

    def test_missing_channel_and_label_are_named(self, source: Path) -> None:
        (source / "imagesTr" / "b_0_0001.nii.gz").unlink()
        (source / "labelsTr" / "b_1.nii.gz").unlink()
        with pytest.raises(ManifestError, match=r"case b_0 has no file of channel T2_FLAIR.*b_1_0000.*no label"):
            _build(source)
        result = _build(source, skip=True, folds=0)
        assert list(_files(result.manifest)) == ["b_2"]
        assert len(result.skipped) == 2

    def test_labels_of_version_one_are_read_too(self, source: Path) -> None:
        content = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "a", "2": "b", "3": "c"}}
        (source / "dataset.json").write_text(json.dumps({**content, "training": []}))
        for number in range(3):
            _nifti(source / "labelsTr" / f"b_{number}.nii.gz", (1, 2, 3))
        assert _build(source).manifest.dataset.labels.names == ["a", "b", "c"]


class TestBids:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for name in ("sub-01", "sub-02/ses-a", "sub-02/ses-b"):
            base = name.replace("/", "_")
            for contrast in ("T1w", "T2w"):
                _nifti(tmp_path / name / "anat" / f"{base}_{contrast}.nii.gz")
            folder = tmp_path / "derivatives" / "labels" / name / "anat"
            _nifti(folder / f"{base}_T1w_seg-manual.nii.gz", (1,))
            _nifti(folder / f"{base}_T1w_lesion-manual.nii.gz", (2,))
        return tmp_path

    def test_subjects_are_patients_and_sessions_are_cases(self, source: Path) -> None:
        result = _build(source, "bids", channels=["T1w", "T2w"], label="seg-manual")
        patients = {case.id: case.patient for case in result.manifest.cases}
        assert patients == {"sub-01": "sub-01", "sub-02_ses-a": "sub-02", "sub-02_ses-b": "sub-02"}
        folds = {case.id: case.fold for case in result.manifest.cases}
        assert folds["sub-02_ses-a"] == folds["sub-02_ses-b"] != folds["sub-01"]
        assert len(result.manifest.cases[0].images) == 2

    def test_open_choices_are_listed(self, source: Path) -> None:
        assert detect_layout(source).name == "bids"
        with pytest.raises(ManifestError, match=r"images of T1w, T2w; choose with --set channels"):
            _build(source)
        with pytest.raises(ManifestError, match="end in: lesion-manual, seg-manual"):
            _build(source, channels=["T1w"])

    def test_missing_contrast_and_label_are_named(self, source: Path) -> None:
        (source / "sub-01" / "anat" / "sub-01_T2w.nii.gz").unlink()
        folder = source / "derivatives" / "labels" / "sub-02" / "ses-a" / "anat"
        (folder / "sub-02_ses-a_T1w_seg-manual.nii.gz").unlink()
        with pytest.raises(ManifestError, match=r"case sub-01 has no T2w image.*sub-02_ses-a_T1w.*has no label"):
            _build(source, channels=["T1w", "T2w"], label="seg-manual")


class TestFolders:
    def test_pairs_of_equal_name(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            _nifti(tmp_path / "images" / f"{name}.nii.gz")
            _nifti(tmp_path / "labels" / f"{name}.nii", (3, 7))
        (tmp_path / "images" / ".DS_Store").write_bytes(b"junk")
        (tmp_path / "images" / "a.json").write_text("{}")
        result = _build(tmp_path)
        labels = result.manifest.dataset.labels
        assert [(label.name, label.value) for label in labels.labels] == [("label_3", 3), ("label_7", 7)]
        assert _files(result.manifest) == {
            "a": ("images/a.nii.gz", "labels/a.nii"),
            "b": ("images/b.nii.gz", "labels/b.nii"),
        }
        assert any(".DS_Store" in note for note in result.notes)
        assert any("a.json" in note for note in result.notes)

    def test_unmatched_files_are_named_and_skipped_only_when_told(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            _nifti(tmp_path / "images" / f"{name}.nii.gz")
            _nifti(tmp_path / "labels" / f"{name}.nii.gz", (1,))
        (tmp_path / "images" / "a.nii.gz").unlink()
        (tmp_path / "labels" / "b.nii.gz").unlink()
        with pytest.raises(ManifestError, match=r"2 files.*images/b\.nii\.gz has no label.*labels/a\.nii\.gz has no"):
            _build(tmp_path)
        result = _build(tmp_path, skip=True, folds=0)
        assert list(_files(result.manifest)) == ["c"]
        assert len(result.skipped) == 2

    def test_train_and_val_folders_become_a_fold(self, tmp_path: Path) -> None:
        for part, name in (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")):
            _png(tmp_path / "images" / part / f"{name}.png")
            _png(tmp_path / "labels" / part / f"{name}.png", (255,))
        result = _build(tmp_path)
        assert {case.id: case.fold for case in result.manifest.cases} == {"a": None, "b": None, "c": 0}
        training, validation = result.manifest.split(0)
        assert ([case.id for case in training], [case.id for case in validation]) == (["a", "b"], ["c"])
        assert any("images/test" in note for note in result.notes)
        assert result.manifest.dataset.spatial_dims == 2
        assert result.manifest.dataset.labels.names == ["label_255"]

    def test_parts_above_images_and_labels_are_found_too(self, tmp_path: Path) -> None:
        for part, name in (("train", "a"), ("valid", "b")):
            _png(tmp_path / part / "images" / f"{name}.png")
            _png(tmp_path / part / "masks" / f"{name}.png", (1,))
        assert {case.id: case.fold for case in _build(tmp_path).manifest.cases} == {"a": None, "b": 0}

    def test_one_name_in_two_parts_is_refused(self, tmp_path: Path) -> None:
        for part in ("train", "val"):
            _png(tmp_path / "images" / part / "a.png")
            _png(tmp_path / "labels" / part / "a.png", (1,))
        with pytest.raises(ManifestError, match="a is in the training and in the validation part; rename"):
            _build(tmp_path)

    def test_suffix_in_one_folder(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            _nifti(tmp_path / f"{name}.nii.gz")
            _nifti(tmp_path / f"{name}_seg.nii.gz", (1,))
        assert _files(_build(tmp_path).manifest)["b"] == ("b.nii.gz", "b_seg.nii.gz")

    def test_several_suffixes_ask_for_a_choice(self, tmp_path: Path) -> None:
        for name in ("sub-1_x", "sub-2_x"):
            _png(tmp_path / "images" / f"{name}.png")
            _png(tmp_path / "labels" / f"{name}_axon.png", (1,))
            _png(tmp_path / "labels" / f"{name}_myelin.png", (1,))
        with pytest.raises(ManifestError, match="_axon, _myelin; choose one with --set label_suffix"):
            _build(tmp_path)
        result = _build(tmp_path, label_suffix="_myelin", patient="(sub-[0-9]+)")
        assert [case.patient for case in result.manifest.cases] == ["sub-1", "sub-2"]
        assert any("_axon" in note for note in result.notes)

    def test_stray_with_the_chosen_suffix_is_no_other_kind(self, tmp_path: Path) -> None:
        for name in ("case1", "case2", "case10"):
            _png(tmp_path / "images" / f"{name}.png")
            _png(tmp_path / "labels" / f"{name}_a.png", (1,))
            _png(tmp_path / "labels" / f"{name}_b.png", (1,))
        (tmp_path / "images" / "case10.png").unlink()
        with pytest.raises(ManifestError, match=r"2 files.*labels/case10_a\.png has no image.*case10_b\.png has no"):
            _build(tmp_path, label_suffix="_a")

    def test_channels_by_suffix_and_a_missing_one_named(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            for channel in ("T1w", "T2w"):
                _nifti(tmp_path / "images" / f"{name}_{channel}.nii.gz")
            _nifti(tmp_path / "labels" / f"{name}.nii.gz", (1,))
        assert _files(_build(tmp_path, channels=["T2w", "T1w"]).manifest)["a"][0] == "images/a_T2w.nii.gz"
        (tmp_path / "images" / "a_T2w.nii.gz").unlink()
        with pytest.raises(ManifestError, match="case a has no file of channel T2w"):
            _build(tmp_path, channels=["T2w", "T1w"])

    def test_colour_pictures_have_three_channels(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        for name in ("a", "b"):
            Image.fromarray(np.full((5, 6, 3), ord(name), np.uint8)).save(tmp_path / "images" / f"{name}.png")
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray(np.eye(5, 6, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
        assert _build(tmp_path).manifest.dataset.channels == ("red", "green", "blue")

    def test_label_of_another_grid_is_named(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            _nifti(tmp_path / "images" / f"{name}.nii.gz")
            _nifti(tmp_path / "labels" / f"{name}.nii.gz", (1,))
        _nifti(tmp_path / "labels" / "b.nii.gz", (1,), shape=(8, 8, 8))
        with pytest.raises(ManifestError, match=r"case b: label labels/b\.nii\.gz \(8 x 8 x 8"):
            _build(tmp_path)
        assert list(_files(_build(tmp_path, skip=True).manifest)) == ["a", "c"]

    def test_interpolated_label_is_named(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            _nifti(tmp_path / "images" / f"{name}.nii.gz")
            _nifti(tmp_path / "labels" / f"{name}.nii.gz", (1,))
        _nifti(tmp_path / "labels" / "b.nii.gz", (0.5, 1), dtype=np.float32)  # type: ignore[arg-type]
        with pytest.raises(ManifestError, match=r"labels/b\.nii\.gz: 1 of its values .*interpolated"):
            _build(tmp_path)

    def test_empty_labels_are_refused(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            _nifti(tmp_path / "images" / f"{name}.nii.gz")
            _nifti(tmp_path / "labels" / f"{name}.nii.gz", (0,))
        with pytest.raises(ManifestError, match="nothing to learn"):
            _build(tmp_path)


class TestCaseFolders:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for name in ("B_001", "B_002"):
            for file in ("flair", "t1"):
                _nifti(tmp_path / name / f"{name}_{file}.nii.gz")
            _nifti(tmp_path / name / f"{name}_seg.nii.gz", (1, 4))
        return tmp_path

    def test_files_are_channels_by_name(self, source: Path) -> None:
        manifest = _build(source).manifest
        assert manifest.dataset.channels == ("flair", "t1")
        assert _files(manifest)["B_001"][2] == "B_001/B_001_seg.nii.gz"

    def test_missing_channel_is_named(self, source: Path) -> None:
        _nifti(source / "B_003" / "B_003_t1.nii.gz")
        _nifti(source / "B_003" / "B_003_seg.nii.gz", (1,))
        with pytest.raises(ManifestError, match="case B_003 has no file flair"):
            _build(source)

    def test_two_labels_ask_for_a_choice(self, source: Path) -> None:
        _nifti(source / "B_001" / "B_001_mask.nii.gz", (1,))
        with pytest.raises(ManifestError, match="several files of a case could be the label"):
            _build(source)


def test_building_again_changes_nothing(tmp_path: Path) -> None:
    for name in "abcdef":
        _nifti(tmp_path / "images" / f"{name}.nii.gz")
        _nifti(tmp_path / "labels" / f"{name}.nii.gz", (1,))
    texts = []
    for output in ("first", "second"):
        folder = write_manifest(_build(tmp_path).manifest, tmp_path / output)
        texts.append((folder / "cases.csv").read_bytes())
        assert read_manifest(folder).folds == (0, 1)
    assert texts[0] == texts[1]


def test_progress_is_told_case_by_case(tmp_path: Path) -> None:
    for name in "ab":
        _nifti(tmp_path / "images" / f"{name}.nii.gz")
        _nifti(tmp_path / "labels" / f"{name}.nii.gz", (1,))
    seen: list[tuple[int, int, str]] = []
    build_manifest(tmp_path, None, BuildOptions(folds=2), lambda *step: seen.append(step))
    assert seen == [(1, 2, "a"), (2, 2, "b")]


@pytest.mark.real
class TestRealData:
    def test_hippocampus_quirks_are_reported_by_name(self, real_data: Path) -> None:
        source = real_data / "hippocampus_quirks"
        with pytest.raises(ManifestError) as raised:
            _build(source)
        for name in ("images/hippocampus_118", "labels/hippocampus_010", "labels/hippocampus_281"):
            assert name in str(raised.value)
        assert len(_build(source, skip=True).manifest.cases) == 4

    def test_chest_pictures_pair_by_name(self, real_data: Path) -> None:
        result = _build(real_data / "cxr_montgomery", folds=5)
        assert (len(result.manifest.cases), result.manifest.dataset.spatial_dims) == (32, 2)
        assert any("masks_as_distributed" in note for note in result.notes)

    def test_masks_resized_with_interpolation_are_refused(self, real_data: Path) -> None:
        for path in sorted((real_data / "cxr_montgomery" / "masks_as_distributed").glob("*.png")):
            assert "lie along edges only" in str(label_form_problem(read_label_values(path).array))

    @pytest.mark.parametrize("name", ["brain_t1_freesurfer/aparc_a2009s_aseg", "ct_organs/example_seg"])
    def test_labels_of_many_structures_are_no_interpolation(self, real_data: Path, name: str) -> None:
        assert label_form_problem(read_label_values(real_data / f"{name}.nii.gz").array) is None

    def test_tumours_have_two_channels_on_one_grid(self, real_data: Path) -> None:
        source = real_data / "sts_petmr_tumour" / "nifti"
        with pytest.raises(
            ManifestError,
            match=r"PET_mask; choose with --set label=MR_T1_mask --set 'channels=\[MR_T1_image, PET_image\]'",
        ):
            _build(source)
        manifest = _build(source, channels=["MR_T1_image", "PET_image"], label="MR_T1_mask").manifest
        assert len(manifest.cases) == 12
        image = read_case(manifest, manifest.cases[0], source).image
        assert image.channels == 2
        assert image.array[1].std() > 0

    def test_contrasts_of_one_subject_are_channels(self, real_data: Path) -> None:
        source = real_data / "spinal_cord_mr" / "ivadomed_sub-unf01"
        with pytest.raises(ManifestError, match="none of the layouts"):
            _build(source)
        contrasts = ["T1w", "T2w", "T2star"]
        result = _build(source, "folders", folds=0, channels=contrasts, label_suffix="_seg-manual")
        assert result.manifest.dataset.channels == tuple(contrasts)
        assert any("T2w_seg-manual" in note for note in result.notes)


def test_every_format_that_can_be_read_can_be_listed(tmp_path: Path) -> None:
    """One table of extensions: what `medseg.io.formats` lists is found here, but slices and halves of pairs."""
    listed = {one for one in EXTENSIONS if is_image(f"images/a{one}")}
    assert listed == set(EXTENSIONS) - {".dcm", ".dicom", ".img", ".img.gz"}
    assert {stem(f"images/a.b{one}") for one in EXTENSIONS} == {"a.b"}
    assert (stem("A.NII.GZ"), stem("notes.txt"), stem("README"), stem("a.b")) == ("A", "notes", "README", "a")
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name, suffix, array in (("images", ".jpg", pixels), ("labels", ".bmp", (pixels > 30).astype(np.uint8))):
        (tmp_path / name).mkdir()
        for case in "ab":
            Image.fromarray(array + (0 if case == "a" or name == "labels" else 9)).save(
                tmp_path / name / (case + suffix)
            )
    manifest = _build(tmp_path, folds=0).manifest
    assert [case.images for case in manifest.cases] == [("images/a.jpg",), ("images/b.jpg",)]


def test_a_file_named_like_a_label_becomes_no_channel_unasked(tmp_path: Path) -> None:
    for case in ("a", "b"):
        for name in ("MR", "MR_mask", "PET", "PET_mask"):
            _nifti(tmp_path / case / f"{name}.nii.gz", () if "mask" not in name else (0, 1))
    with pytest.raises(ManifestError, match=r"PET_mask would become a channel.*'channels=\[MR, PET\]'"):
        _build(tmp_path, "case_folders", label="MR_mask")
    built = _build(tmp_path, "case_folders", label="MR_mask", channels=["MR", "PET"])
    assert built.manifest.dataset.channels == ("MR", "PET")
