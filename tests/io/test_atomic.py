"""A result is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medseg.errors import WriteError
from medseg.io.atomic import atomic_path, atomic_write_bytes, atomic_write_text


def test_bytes_and_text_are_written_as_given(tmp_path: Path) -> None:
    assert atomic_write_bytes(tmp_path / "a.bin", b"\0\1").read_bytes() == b"\0\1"
    assert atomic_write_text(tmp_path / "a.txt", "µ\n").read_bytes() == b"\xc2\xb5\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.txt"]


def test_temporary_file_is_a_neighbour_with_the_same_suffixes(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "label.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("label.nii.gz")
        temporary.write_bytes(b"x")


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, OSError])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(WriteError if failure is OSError else failure), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_rename_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(WriteError, match="taken"):
        atomic_write_bytes(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="nowhere"):
        atomic_write_bytes(tmp_path / "nowhere" / "a.bin", b"x")


def test_rights_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = atomic_write_bytes(tmp_path / "a.bin", b"x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
