"""What the cache gives is what was put there under that name, whoever else writes, dies, or runs out of space."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from medseg.data.cache import FACTS, Cache, Entry, file_digest, key_of
from medseg.errors import WriteError

FORK = multiprocessing.get_context("fork")
KB = 1000


def entry(number: int, kilobytes: int = 1) -> Entry:
    image = np.full((kilobytes * 250,), number, dtype=np.float32)
    return Entry({"image": image, "empty": np.empty((0, 3), np.int32)}, {"number": number})


def key(number: int) -> str:
    return key_of({"number": number})


def numbers(cache: Cache, upto: int) -> list[int]:
    found = [(number, cache.open(key(number))) for number in range(upto)]
    assert all(one is None or set(one.arrays["image"]) == {number} for number, one in found)
    return [number for number, one in found if one is not None]


def test_an_entry_is_found_as_it_was_put(tmp_path: Path) -> None:
    cache = Cache(tmp_path, KB * KB)
    assert cache.open(key(1)) is None
    assert not cache.has(key(1))
    cache.put(key(1), entry(1))
    found = Cache(tmp_path, KB * KB).open(key(1))
    assert found is not None
    assert found.facts == {"number": 1}
    assert np.array_equal(found.arrays["image"], entry(1).arrays["image"])
    assert found.arrays["empty"].shape == (0, 3)
    assert cache.has(key(1))


def test_what_is_written_to_a_mapped_array_stays_in_this_process(tmp_path: Path) -> None:
    cache = Cache(tmp_path, KB * KB)
    cache.put(key(1), entry(1))
    opened = cache.open(key(1))
    assert opened is not None
    opened.arrays["image"][:] = 9
    assert numbers(cache, 2) == [1]


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", KB * KB)
    cache.put(key(1), entry(1))
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").rglob("*.npy")]
    assert set(modes) == {0o600}
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["cut", "flipped", "removed"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path, KB * KB)
    cache.put(key(1), entry(1))
    (file,) = tmp_path.glob("??/*/image.npy")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    if damage != "removed":
        file.write_bytes(data if damage == "flipped" else data[:-1])
    assert not cache.has(key(1))
    cache.put(key(1), entry(1))
    assert cache.has(key(1))
    assert numbers(cache, 2) == [1]


def test_what_was_used_longest_ago_gives_way(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 9 * KB)
    for number in range(3):
        cache.put(key(number), entry(number, 2))
        time.sleep(0.01)
    cache.open(key(0))
    cache.put(key(3), entry(3, 2))
    assert numbers(cache, 4) == [0, 2, 3]
    assert cache.size_bytes() <= 9 * KB


def test_what_is_leased_stays_and_a_cache_too_small_says_so(tmp_path: Path) -> None:
    cache, other = Cache(tmp_path, 9 * KB), Cache(tmp_path, 9 * KB)
    other.lease([key(0), key(1)])
    for number in range(3):
        cache.put(key(number), entry(number, 2))
    cache.put(key(3), entry(3, 2))
    assert numbers(cache, 4) == [0, 1, 3]
    cache.lease([key(3)])
    with pytest.raises(WriteError, match=r"limit of 9e-06 GB is too little for what is in use and 0\.002\d+ MB more"):
        cache.put(key(4), entry(4, 2))
    assert numbers(cache, 5) == [0, 1, 3]


def _put_slowly(folder: Path, first: int) -> None:
    """Puts entries without an end, until it is killed."""
    cache = Cache(folder, KB * KB)
    while True:
        for number in range(20):
            chosen = (first + number) % 20
            cache.put(key(chosen), entry(chosen, 40))
            for path in folder.glob(f"??/{key(chosen)}/{FACTS}"):
                path.write_text("{}")  # so that it has to be made again


def _put_all(folder: Path, first: int) -> None:
    cache = Cache(folder, KB * KB)
    for number in range(20):
        chosen = (first + number) % 20
        if not cache.has(key(chosen)):
            cache.put(key(chosen), entry(chosen, 5))


def test_many_writers_leave_each_entry_once_and_whole(tmp_path: Path) -> None:
    writers = [FORK.Process(target=_put_all, args=(tmp_path, 5 * first)) for first in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    cache = Cache(tmp_path, KB * KB)
    assert numbers(cache, 20) == list(range(20))
    assert all(cache.has(key(number)) for number in range(20))
    assert not list((tmp_path / "unfinished").iterdir())


def test_writers_that_are_killed_leave_nothing_half_written(tmp_path: Path) -> None:
    for attempt in range(8):
        writers = [FORK.Process(target=_put_slowly, args=(tmp_path, first)) for first in (0, 7)]
        for writer in writers:
            writer.start()
        time.sleep(0.05 + 0.02 * attempt)
        for writer in writers:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join(60)
        cache = Cache(tmp_path, KB * KB)
        numbers(cache, 20)  # whatever is found is right
        for number in range(20):
            if not cache.has(key(number)):
                cache.put(key(number), entry(number, 40))
        assert numbers(cache, 20) == list(range(20))
    assert not list((tmp_path / "gone").iterdir())
    assert not list((tmp_path / "unfinished").glob("*.entry"))


def test_the_lease_of_a_dead_process_binds_nobody(tmp_path: Path) -> None:
    def lease_and_die() -> None:
        Cache(tmp_path, 4 * KB).lease([key(0)])
        os.kill(os.getpid(), signal.SIGKILL)

    Cache(tmp_path, 4 * KB).put(key(0), entry(0, 2))
    dying = FORK.Process(target=lease_and_die)
    dying.start()
    dying.join(60)
    cache = Cache(tmp_path, 4 * KB)
    cache.put(key(1), entry(1, 2))
    assert numbers(cache, 2) == [1]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path, KB * KB)
    cache.put(key(0), entry(0))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\); free some space"):
        cache.put(key(1), entry(1))
    assert numbers(cache, 2) == [0]
    assert not list((tmp_path / "unfinished").iterdir())


def test_digests_are_over_bytes_and_over_all_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    before, whole = file_digest(tmp_path / "a" / "x"), file_digest(tmp_path / "a")
    assert before == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"  # sha256sum
    (tmp_path / "a" / "y").write_bytes(b"")
    assert file_digest(tmp_path / "a") != whole
