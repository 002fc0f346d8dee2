"""`medseg benchmark networks`: every shipped network on one data set, with what it costs and what it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.benchmark.agenda import Agenda
from pipelines.benchmark.contest import Plan, first_stage, second_stage
from pipelines.benchmark.entries import network_entries
from pipelines.benchmark.report import report
from pipelines.benchmark.work import Workshop
from pipelines.console import Console

DIMS = {"2": (2,), "3": (3,), "both": (2, 3)}


def networks(
    workshop: Workshop, names: Sequence[str], dims: str, assignments: Sequence[str], plan: Plan
) -> dict[str, Any]:
    """Measures and trains every network in turn; all that was done is kept below the workshop's folder."""
    agenda = Agenda(workshop, Console())
    rows = first_stage(agenda, network_entries(names, DIMS[dims], assignments), plan)
    if plan.only_cost or not plan.best:
        return report(agenda, "networks", rows, [], plan)
    report(agenda, "networks", rows, [], plan)  # so that hours of the second stage keep nobody waiting for the first
    return report(agenda, "networks", rows, second_stage(agenda, rows, plan), plan)
