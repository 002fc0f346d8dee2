"""Cases from the cache are those that the files hold, and only as long as nothing that made them has changed."""

from __future__ import annotations

import copy
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.data import prepared_cases as module
from medseg.data.augmentation import Affine, Noise
from medseg.data.cache import Cache, Entry
from medseg.data.cases import read_case
from medseg.data.dataset import Case, DatasetInfo
from medseg.data.loaders import Patches, batches, training_case
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.data.patches import PatchSettings
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.data.prepared_cases import PreparedCases, prepared_cases
from medseg.data.preprocessing import Preprocessing, prepare
from medseg.errors import DataError, ManifestError, ReadError
from medseg.io import write_nifti
from medseg.volume import digest

SETTINGS = Preprocessing()


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Three phantoms."""
    cases = []
    for number in range(3):
        image, label = phantom(number, (14, 18, 12))
        paths = f"image{number}.nii.gz", f"label{number}.nii.gz"
        write_nifti(image, tmp_path / paths[0])
        write_nifti(label, tmp_path / paths[1])
        cases.append(Case(f"p{number}", f"p{number}", None, paths[:1], paths[1]))
    dataset = DatasetInfo(
        name="phantoms", version="1", licence="CC0-1.0", source="generated", channels=("MR",), labels=PHANTOM_LABELS
    )
    write_manifest(Manifest(dataset, tuple(cases), tmp_path), tmp_path)
    return read_manifest(tmp_path, tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10**9)


def entries(cache: Cache) -> int:
    return len(list(cache.folder.glob("??/*/entry.json")))


def made(manifest: Manifest, cache: Cache, settings: Preprocessing = SETTINGS, workers: int = 0) -> PreparedCases:
    return prepared_cases(manifest, manifest.cases, manifest.folder, settings, cache, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_cases_are_bit_for_bit_those_of_their_files(manifest: Manifest, cache: Cache, workers: int) -> None:
    found = made(manifest, cache, workers=workers)
    assert len(found) == 3
    for case, got in zip(manifest.cases, found, strict=True):
        data = read_case(manifest, case, manifest.folder)
        expected = training_case(case.id, prepare(data.image, SETTINGS, data.label), PHANTOM_LABELS)
        assert got.case_id == case.id
        assert torch.equal(got.image, expected.image)
        assert got.image.dtype == torch.float32
        assert torch.equal(got.label.int(), expected.label)
        assert got.fill == expected.fill
        assert [one.tolist() for one in got.positions] == [one.tolist() for one in expected.positions]


def test_patches_from_the_cache_are_those_from_memory(manifest: Manifest, cache: Cache) -> None:
    in_memory = []
    for case in manifest.cases:
        data = read_case(manifest, case, manifest.folder)
        in_memory.append(training_case(case.id, prepare(data.image, SETTINGS, data.label), PHANTOM_LABELS))
    streams = []
    for cases in (in_memory, made(manifest, cache)):
        patches = Patches(cases, PatchSettings(size=(16, 16, 8)), [Affine(probability=0.8), Noise()], seed=1)
        streams.append(list(batches(patches, 2, range(4), workers=0)))
    for one, other in zip(*streams, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])


def test_what_is_there_is_used_again(manifest: Manifest, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    made(manifest, cache)
    monkeypatch.setattr(module, "read_case", None)  # nothing is read
    assert len(made(manifest, cache)) == entries(cache) == 3


def test_one_changed_byte_is_noticed(manifest: Manifest, cache: Cache) -> None:
    made(manifest, cache)
    image, _ = phantom(1, (14, 18, 12))
    before = digest(image.array, image.geometry)
    image.array[0, 3, 3, 3] += 1
    write_nifti(image, manifest.folder / "image1.nii.gz")
    assert torch.equal(made(manifest, cache)[1].image, torch.from_numpy(prepare(image, SETTINGS).image))
    pinned = replace(manifest.cases[1], image_digests=(before,))
    with pytest.raises(ManifestError, match=r"case p1: voxels or affine of image1\.nii\.gz changed"):
        made(replace(manifest, cases=(pinned,)), cache)


@pytest.mark.parametrize("what", ["settings", "labels", "code", "libraries"])
def test_whatever_made_an_entry_is_part_of_its_name(
    manifest: Manifest, cache: Cache, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made(manifest, cache)
    settings = SETTINGS
    if what == "settings":
        settings = Preprocessing(spacing_mm=(1.5, 1.5, 1.5))
    elif what == "labels":
        fewer = PHANTOM_LABELS.model_copy(update={"ignore": 99})
        manifest = replace(manifest, dataset=manifest.dataset.model_copy(update={"labels": fewer}))
    else:
        monkeypatch.setattr(module, {"code": "_code_digest", "libraries": "_versions"}[what], lambda: "another")
    made(manifest, cache, settings)
    assert entries(cache) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_told_as_it_is(manifest: Manifest, cache: Cache, workers: int) -> None:
    (manifest.folder / "image2.nii.gz").write_bytes(b"no image")
    with pytest.raises(ReadError, match=r"^\S*image2\.nii\.gz"):
        made(manifest, cache, workers=workers)
    assert entries(cache) == 2


def test_a_case_that_is_gone_is_told(manifest: Manifest, cache: Cache) -> None:
    found = made(manifest, cache)
    for path in cache.folder.glob("??/*/image.npy"):
        path.unlink()
    with pytest.raises(DataError, match="case p0 is gone from cache"):
        found[0]


def test_what_is_sent_to_another_process_opens_its_own_and_holds_its_own_lease(
    manifest: Manifest, cache: Cache
) -> None:
    found = made(manifest, cache)
    assert found[0].case_id == "p0"
    sent = copy.deepcopy(found)  # as a worker that was not forked gets it
    assert not sent._open
    assert torch.equal(sent[1].image, found[1].image)
    assert len(list((cache.folder / "leases").glob("*.lock"))) == 2


def test_a_bounded_number_of_cases_is_open(manifest: Manifest, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN", 2)
    found = made(manifest, cache)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for index in [0, 1, 2] * 20:
        assert found[index].case_id == f"p{index}"
    assert len(found._open) == 2
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 6 < limit


def test_the_image_of_a_case_is_not_read_to_cut_a_patch(tmp_path: Path) -> None:
    """A file of 800 MB on disk, mostly a hole, of which a patch touches a few pages."""
    cache = Cache(tmp_path / "large", 10**10)
    small = (1, 4, 4, 4)
    arrays: dict[str, np.ndarray] = {"image": np.zeros(small, np.float32), "label": np.zeros(small, np.uint8)}
    arrays["positions"] = np.zeros((0, 3), np.int32)
    cache.put("ab" * 32, Entry(arrays, {"positions": [0], "fill": 0.0}))
    shape = (1, 1000, 500, 400)
    home = cache.folder / "ab" / ("ab" * 32)
    np.lib.format.open_memmap(home / "image.npy", "w+", np.float32, shape).flush()
    np.lib.format.open_memmap(home / "label.npy", "w+", np.uint8, shape).flush()
    facts = (home / "entry.json").read_text()
    for name in ("image", "label"):
        old, new = 128 + arrays[name].nbytes, (home / f"{name}.npy").stat().st_size
        facts = facts.replace(f'"{name}": {old}', f'"{name}": {new}')
    (home / "entry.json").write_text(facts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    patches = Patches(PreparedCases(cache, [("big", "ab" * 32)]), PatchSettings(size=(16, 16, 16)), [], seed=0)
    assert all(batch["image"].shape == (1, 1, 16, 16, 16) for batch in batches(patches, 1, range(20), workers=0))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB
