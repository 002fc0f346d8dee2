"""A manifest is read strictly, written whole, and known by what its files hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medseg.data.dataset import inside
from medseg.data.manifest import Case, DatasetInfo, Download, Manifest, read_manifest, write_manifest
from medseg.errors import ConfigError, ManifestError
from medseg.labels import Label, LabelSet

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = LabelSet(labels=(Label(name="liver", value=1),))
DATASET = DatasetInfo(
    name="phantom", version="1", licence="CC0-1.0", source="made here", channels=("CT",), labels=LABELS
)
HEADER = "case_id,patient_id,fold,image,label,image_sha256,label_sha256"
DIGEST = "0" * 64


def _folder(tmp_path: Path, text: str | bytes, dataset: DatasetInfo = DATASET) -> Path:
    """A manifest folder with this cases.csv."""
    case = Case("c", "c", None, ("c.nii.gz",), None)
    folder = write_manifest(Manifest(dataset, (case,), tmp_path / "manifest"), force=True)
    (folder / "cases.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def _rows(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"


def _case(number: int, fold: int | None = 0, **changes: object) -> Case:
    case = Case(f"c{number}", f"p{number}", fold, (f"i/{number}.nii",), f"l/{number}.nii", (DIGEST,), DIGEST)
    return replace(case, **changes)  # type: ignore[arg-type]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    cases = (
        _case(1, columns={"site": "A, east"}),
        _case(2, None, columns={"site": 'B "west"'}),
        _case(3, label=None, label_digest=None),
    )
    written = Manifest(DATASET, cases, tmp_path / "m")
    read = read_manifest(write_manifest(written))
    assert read.dataset == DATASET
    assert read.cases == cases
    assert read.digest == written.digest


def test_a_domain_is_left_out_by_any_column(tmp_path: Path) -> None:
    sites = {1: "A", 2: "B", 3: "A", 4: "C"}
    cases = tuple(_case(number, columns={"site": site}) for number, site in sites.items())
    manifest = Manifest(DATASET, (*cases, _case(5, label=None, columns={"site": "A"})), tmp_path)
    training, validation = manifest.split_by("site", "A")
    assert [case.id for case in validation] == ["c1", "c3"]
    assert [case.id for case in training] == ["c2", "c4"]
    with pytest.raises(ManifestError, match="has no column 'sites'; did you mean 'site'"):
        manifest.split_by("sites", "A")
    with pytest.raises(ManifestError, match=r"site='D' leaves no labelled case to validate on; values: A, B, C"):
        manifest.split_by("site", "D")
    shared = replace(manifest, cases=(*cases, _case(6, patient="p1", columns={"site": "B"})))
    with pytest.raises(ManifestError, match=r"site='A' parts cases of one patient \(c1, c6\)"):
        shared.split_by("site", "A")


def test_one_column_a_channel_keeps_their_order(tmp_path: Path) -> None:
    dataset = DATASET.model_copy(update={"channels": ("T2", "T1")})
    case = _case(1, images=("t2.nii", "t1.nii"), image_digests=(DIGEST, None))
    read = read_manifest(write_manifest(Manifest(dataset, (case,), tmp_path / "m")))
    assert (tmp_path / "m" / "cases.csv").read_text().startswith("case_id,patient_id,fold,image_T2,image_T1,label,")
    assert read.cases[0].images == ("t2.nii", "t1.nii")
    assert read.cases[0].image_digests == (DIGEST, None)


REFUSALS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("is empty", "case_id")),
    "no case": (HEADER + "\n", ("no case", "manifest build")),
    "NUL": (HEADER.encode() + b"\na,\0,0,i,l,,\n", ("line 2", "NUL")),
    "not UTF-8": (HEADER.encode() + b"\n\xff,p,0,i,l,,\n", ("UTF-8",)),
    "open quote": (_rows('a,"p,0,i,l,,'), ("not valid CSV", "quotes")),
    "typed column": (HEADER.replace("label,", "lable,") + "\n", ("'lable'", "did you mean 'label'")),
    "unknown channel": (HEADER + ",image_T9\na,p,0,i,l,,,x\n", ("'image_T9'", "columns here")),
    "column twice": (HEADER + ",fold\n", ("'fold' is given twice",)),
    "missing column": (HEADER.replace("patient_id,", "") + "\n", ("'patient_id' is missing", "header must be")),
    "short row": (_rows("a,p,0,i"), ("line 2 has 4 cells", "7")),
    "id twice": (_rows("a,p,0,i,l,,", "a,q,0,j,l,,"), ("line 3", "'a' is on line 2")),
    "fold": (_rows("a,p,first,i,l,,"), ("line 2", "'first'", "whole number")),
    "negative fold": (_rows("a,p,-1,i,l,,"), ("'-1'",)),
    "no patient": (_rows("a,,0,i,l,,"), ("patient_id is empty",)),
    "blanks": (_rows("a,p,0, i.nii,l,,"), ("' i.nii'", "blanks")),
    "absolute": (_rows("a,p,0,/etc/passwd,l,,"), ("'/etc/passwd' is absolute", "relative")),
    "drive": (_rows("a,p,0,C:/x.nii,l,,"), ("'C:/x.nii' is absolute",)),
    "share": (_rows(r"a,p,0,\\host\x.nii,l,,"), ("is absolute",)),
    "backslash": (_rows("a,p,0,d\\x.nii,l,,"), ("backslash",)),
    "leaves the root": (_rows("a,p,0,i,d/../../x.nii,,"), ("label 'd/../../x.nii'", "'..'")),
    "id with a slash": (_rows("../a,p,0,i,l,,"), ("case_id '../a'", "cannot name a file")),
    "digest": (_rows("a,p,0,i,l,abc,"), ("image_sha256 'abc'", "SHA-256")),
    "patient in two folds": (_rows("a,p,0,i,l,,", "b,p,1,j,l,,"), ("line 3", "'p' is in fold 1", "fold 0 on line 2")),
    "patient in a fold and in none": (_rows("a,p,0,i,l,,", "b,p,,j,l,,"), ("'p' is in no fold",)),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_wrong_table_is_refused_with_place_value_and_fix(tmp_path: Path, name: str) -> None:
    text, expected = REFUSALS[name]
    folder = _folder(tmp_path, text)
    with pytest.raises(ManifestError) as raised:
        read_manifest(folder)
    for part in (str(folder / "cases.csv"), *expected):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_several_problems_are_told_at_once(tmp_path: Path) -> None:
    folder = _folder(tmp_path, _rows(*(f"c{number},p{number},x,i,l,," for number in range(9))))
    with pytest.raises(ManifestError, match=r"line 2.*line 3.*line 4.*and 6 more"):
        read_manifest(folder)


def test_byte_order_mark_blank_lines_and_crlf_are_no_problem(tmp_path: Path) -> None:
    folder = _folder(tmp_path, b"\xef\xbb\xbf" + _rows("a,p,0,i.nii,l.nii,,", "").replace("\n", "\r\n").encode())
    assert read_manifest(folder).case("a").images == ("i.nii",)


def _wrong_channel(content: dict[str, object]) -> None:
    content["channels"] = ["CT", "CT"]


def _typo(content: dict[str, object]) -> None:
    content["chanels"] = content.pop("channels")


def _lone_layout(content: dict[str, object]) -> None:
    content["layout"] = "msd"


@pytest.mark.parametrize(
    ("change", "expected"),
    [(_wrong_channel, "given twice"), (_typo, "did you mean 'channels'"), (_lone_layout, "go together")],
)
def test_wrong_dataset_yaml_is_refused(
    tmp_path: Path, change: Callable[[dict[str, object]], None], expected: str
) -> None:
    import yaml

    folder = _folder(tmp_path, _rows("a,p,0,i,l,,"))
    content = yaml.safe_load((folder / "dataset.yaml").read_text())
    change(content)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=expected):
        read_manifest(folder)


def test_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"dataset\.yaml"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="does not exist"):
        read_manifest(tmp_path / "absent")


def test_link_out_of_the_data_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.nii").touch()
    (root / "x.nii").symlink_to(tmp_path / "secret.nii")
    (root / "y.nii").symlink_to(root / "z.nii")
    with pytest.raises(ManifestError, match="link to a place outside"):
        inside(root, "x.nii", "case a")
    assert inside(root, "y.nii", "case a") == root / "y.nii"


class TestSplit:
    manifest = Manifest(
        DATASET, (_case(1, 0), _case(2, 1), _case(3, 1), _case(4, None), _case(5, 0, label=None)), Path("m")
    )

    def test_validation_is_the_fold_and_training_the_rest(self) -> None:
        training, validation = self.manifest.split(1)
        assert [case.id for case in training] == ["c1", "c4"]
        assert [case.id for case in validation] == ["c2", "c3"]

    def test_no_fold_trains_on_every_label(self) -> None:
        training, validation = self.manifest.split(None)
        assert [case.id for case in training] == ["c1", "c2", "c3", "c4"]
        assert validation == ()

    def test_unknown_fold_is_refused_with_the_known(self) -> None:
        with pytest.raises(ManifestError, match=r"fold 7 .*folds are: 0, 1"):
            self.manifest.split(7)

    def test_fold_that_leaves_nothing_to_train_on_is_refused(self) -> None:
        with pytest.raises(ManifestError, match="no labelled case to train"):
            Manifest(DATASET, (_case(1, 0),), Path("m")).split(0)

    def test_unknown_case_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(ManifestError, match="did you mean 'c4'"):
            self.manifest.case("c4x")


class TestDigest:
    manifest = Manifest(DATASET, (_case(1), _case(2, 1)), Path("m"))

    def test_order_folder_and_paths_do_not_count(self) -> None:
        moved = replace(self.manifest.cases[1], images=("elsewhere.nii",), columns={"site": "A"})
        assert Manifest(DATASET, (moved, self.manifest.cases[0]), Path("n")).digest == self.manifest.digest

    @pytest.mark.parametrize(
        "changes",
        [{"fold": 2}, {"patient": "x"}, {"image_digests": ("1" * 64,)}, {"label": None}, {"label_digest": "1" * 64}],
    )
    def test_what_decides_a_result_counts(self, changes: dict[str, object]) -> None:
        changed = replace(self.manifest.cases[0], **changes)  # type: ignore[arg-type]
        assert Manifest(DATASET, (changed, self.manifest.cases[1]), Path("m")).digest != self.manifest.digest

    def test_labels_count(self) -> None:
        labels = LabelSet(labels=(Label(name="spleen", value=1),))
        dataset = DATASET.model_copy(update={"labels": labels})
        assert Manifest(dataset, self.manifest.cases, Path("m")).digest != self.manifest.digest


SHIPPED = sorted(path.parent for path in (REPOSITORY / "data_manifests").glob("*/dataset.yaml"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_manifest_is_valid(folder: Path, tmp_path: Path) -> None:
    if (folder / "cases.csv").is_file():
        manifest = read_manifest(folder)
        assert manifest.dataset.name == folder.name
        assert manifest.cases
        assert all(digest for case in manifest.cases for _, digest in case.files)
    else:
        with pytest.raises(ManifestError, match="--data-root"):
            read_manifest(folder)


def test_official_layout_lists_its_cases_from_the_data(tmp_path: Path) -> None:
    """The 260 ids stand in for the official ones: position alone decides the fold."""
    entries = ",".join(
        f'{{"image": "./imagesTr/h_{number:03d}.nii.gz", "label": "./labelsTr/h_{number:03d}.nii.gz"}}'
        for number in range(260, 0, -1)
    )
    (tmp_path / "dataset.json").write_text(f'{{"training": [{entries}], "test": ["./imagesTs/h_300.nii.gz"]}}')
    manifest = read_manifest(REPOSITORY / "data_manifests" / "task04_hippocampus", tmp_path)
    assert len(manifest.cases) == 260
    assert manifest.folds == (0, 1, 2, 3, 4)
    assert all(len(manifest.split(fold)[1]) == 52 for fold in manifest.folds)
    assert manifest.cases[0].images == ("imagesTr/h_001.nii.gz",)
    assert manifest.dataset.download == Download(task="Task04_Hippocampus", md5="9d24dba78a72977dbd1d2e110310f31b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ("{}", "'training' lists no case"),
        ('{"training": ["a.nii"]}', r"training\[0\]"),
        ('{"training": [{"image": "../../a.nii", "label": "b.nii"}]}', r"'\.\.'"),
        ('{"training": [{"image": "a.nii", "label": "b"}, {"image": "x/a.nii", "label": "c"}]}', "'a' twice"),
    ],
)
def test_wrong_index_of_the_official_layout_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ManifestError, match=expected):
        read_manifest(REPOSITORY / "data_manifests" / "task04_hippocampus", tmp_path)


def test_a_manifest_that_is_there_is_replaced_by_force_alone(tmp_path: Path) -> None:
    case = Case("a", "a", None, ("a.nii",), "l.nii")
    folder = write_manifest(Manifest(DATASET, (case,), tmp_path / "m"))
    by_hand = (folder / "dataset.yaml").read_text().replace("made here", "completed by hand")
    (folder / "dataset.yaml").write_text(by_hand)
    with pytest.raises(ConfigError, match=r"holds dataset\.yaml and cases\.csv already; .* --force"):
        write_manifest(Manifest(DATASET, (case,), folder))
    assert (folder / "dataset.yaml").read_text() == by_hand
    write_manifest(Manifest(DATASET, (case,), folder), force=True)
    assert "made here" in (folder / "dataset.yaml").read_text()


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        (
            [("a", "p", 0), ("b", "p", None)],
            r"patient 'p' is in no fold \(case b\), but in fold 0 on line 2 \(case a\)",
        ),
        ([("a", "p", 0), ("a", "q", 0)], "case_id 'a' is on line 2 too"),
        ([("a", "", 0)], "patient_id is empty"),
        ([("a/b", "p", 0)], "cannot name a file"),
        ([], "has a header and no case"),
    ],
)
def test_a_manifest_that_could_not_be_read_is_not_written(
    tmp_path: Path, cases: list[tuple[str, str, int | None]], message: str
) -> None:
    listed = tuple(Case(name, patient, fold, ("i.nii",), "l.nii") for name, patient, fold in cases)
    with pytest.raises(ManifestError, match=rf"nothing is written, .*{message}"):
        write_manifest(Manifest(DATASET, listed, tmp_path / "m"))
    assert not (tmp_path / "m").exists()


SIDES = DATASET.model_copy(
    update={
        "labels": LabelSet(
            labels=(
                Label(name="liver", value=1),
                Label(name="left kidney", value=2, pair="right kidney"),
                Label(name="right kidney", value=3, pair="left kidney"),
            )
        )
    }
)


def test_what_was_looked_for_in_a_case_is_kept_and_belongs_to_the_manifests_identity(tmp_path: Path) -> None:
    cases = (_case(1, columns={"site": "A"}), _case(2, annotated=("left kidney", "right kidney")))
    written = Manifest(SIDES, cases, tmp_path / "m")
    read = read_manifest(write_manifest(written))
    assert read.cases == cases
    assert read.digest == written.digest != Manifest(SIDES, (_case(1), _case(2)), tmp_path).digest


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("livr", "line 2: annotated 'livr' is no label of the data set; did you mean 'liver'"),
        ("liver;left kidney", "lists one of 'left kidney' and 'right kidney', which a mirror exchanges"),
        ("liver;;", "annotated '' is no label"),
    ],
)
def test_a_wrong_list_of_what_was_looked_for_is_refused(tmp_path: Path, cell: str, says: str) -> None:
    text = f"case_id,patient_id,fold,image,label,annotated\nc,p,0,i.nii,l.nii,{cell}\n"
    with pytest.raises(ManifestError, match=says):
        read_manifest(_folder(tmp_path, text, SIDES))


def test_what_was_looked_for_needs_a_label_and_a_name(tmp_path: Path) -> None:
    text = "case_id,patient_id,fold,image,label,annotated\nc,p,0,i.nii,,liver\n"
    with pytest.raises(ManifestError, match="line 2: annotated 'liver' is of a case without a label"):
        read_manifest(_folder(tmp_path, text, SIDES))
    with pytest.raises(ValueError, match="case c1: annotated lists no label"):
        _case(1, annotated=())
