"""How many samples a second medseg's patch stream gives, beside other libraries that draw the same patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from medseg.extras import Extra
from pipelines.benchmark.data.monai_sources import LIBRARY as MONAI
from pipelines.benchmark.data.monai_sources import monai_sources
from pipelines.benchmark.data.rounds import Comparison, in_rounds
from pipelines.benchmark.data.sources import Draws, Source, alike, in_memory, medseg_source, samples_per_s
from pipelines.console import Console

AT_LEAST = 1.3  # times MONAI's faster loader
PEERS = Extra("peers", ("batchgeneratorsv2",), "pip install 'medseg[peers]'")


def patch_rates(wanted: Draws, count: int, rounds: int, console: Console) -> tuple[list[Comparison], list[str]]:
    """Samples/s of each source over `count` batches a round, and notes on what was left out.

    All draw patches of one size from the same cases, in batches of one size, by the same number of worker processes of
    one thread each; nobody uses the batches. Each round starts the workers anew and times them when they are at work.
    medseg's cases are mapped from the cache on disk, those of the others lie in RAM.
    """
    draws, left = alike(wanted)
    notes = [f"Left out of the patches of all, since not every library has it: {', '.join(left)}."] if left else []
    if not PEERS.is_installed():
        notes.append(f"{', '.join(PEERS.absent())} is not installed and left out; {PEERS.command}.")
    sources = {source.name: source for source in [medseg_source(draws), *_others(draws)]}
    sides = {name: lambda source=source: samples_per_s(source, draws, count) for name, source in sources.items()}
    found = in_rounds(console, "patches", sides, rounds)
    ours, *others = sources.values()
    fastest = {name for library in {other.library for other in others} for name in [_fastest(library, others, found)]}
    return [_comparison(other, found[ours.name], found[other.name], other.name in fastest) for other in others], notes


def _others(draws: Draws) -> list[Source]:
    """The sources beside medseg's that this machine has."""
    cases = in_memory(draws.cases, draws.patch.box)
    sources = monai_sources(draws, cases)
    if PEERS.is_installed():
        from pipelines.benchmark.data.batchgenerators_sources import batchgenerators_sources

        sources += batchgenerators_sources(draws, cases)
    return sources


def _fastest(library: str, sources: Sequence[Source], found: Mapping[str, Sequence[float]]) -> str:
    return max((one.name for one in sources if one.library == library), key=lambda name: median(found[name]))


def _comparison(other: Source, ours: Sequence[float], theirs: Sequence[float], is_fastest: bool) -> Comparison:
    """Of a library's loaders, the one that is faster here is what medseg is held against."""
    beside = f"{other.name} (its faster one)" if is_fastest else other.name
    target = AT_LEAST if is_fastest and other.library == MONAI else None
    return Comparison("patches, cut and augmented", "samples/s", ours, beside, theirs, target)
