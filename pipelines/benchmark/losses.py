"""`medseg benchmark losses`: every loss of a list on one experiment that is the same but for the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.benchmark.agenda import Agenda
from pipelines.benchmark.contest import Plan, first_stage, second_stage
from pipelines.benchmark.entries import loss_entries, read_losses
from pipelines.benchmark.report import report
from pipelines.benchmark.work import Workshop
from pipelines.console import Console
from pipelines.locations import find_benchmark


def losses(
    workshop: Workshop, names: Sequence[str], choices: Path | None, assignments: Sequence[str], plan: Plan
) -> dict[str, Any]:
    """Measures and trains with every loss in turn; all that was done is kept below the workshop's folder."""
    agenda = Agenda(workshop, Console())
    entries = loss_entries(read_losses(choices or find_benchmark("losses")), names, assignments)
    rows = first_stage(agenda, entries, plan, phases=("training",))  # inference knows no loss
    if plan.only_cost or not plan.best:
        return report(agenda, "losses", rows, [], plan)
    report(agenda, "losses", rows, [], plan)
    return report(agenda, "losses", rows, second_stage(agenda, rows, plan), plan)
