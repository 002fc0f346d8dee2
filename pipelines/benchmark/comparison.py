"""`medseg benchmark networks` and `losses`: all of a kind on one data set, what each costs and what it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.benchmark.costing import PHASES, Phase
from pipelines.benchmark.entries import Entry, loss_entries, network_entries, read_losses
from pipelines.benchmark.results import Result, one_machine
from pipelines.benchmark.stages import Plan, Row, cases_of_all, first_stage, second_stage
from pipelines.benchmark.tables import (
    INTERVALS,
    Content,
    blind_line,
    cases_line,
    dice_cell,
    head_line,
    interval,
    markdown,
    number,
    publish,
    refuse_nothing,
    row_contents,
    shortened,
    with_differences,
)
from pipelines.benchmark.work import Work
from pipelines.locations import find_benchmark

DIMS = {"2": (2,), "3": (3,), "both": (2, 3)}


@dataclass(frozen=True)
class Kind:
    """What is compared: its name in the table, the costs that differ, and what the page says of the choice."""

    noun: str
    phases: tuple[Phase, ...]
    sizes: bool  # whether weights, arithmetic and patch differ, too
    told: str


NETWORKS = Kind(
    "network",
    PHASES,
    sizes=True,
    told="Shipped configs, sized for a CPU, are compared, not architectures at their best. Each brings its network, "
    "optimizer and, where it sets one, precision; all else is that of one base for each number of axes, the patch too "
    "wherever the network can take it.",
)
LOSSES = Kind("loss", ("training",), sizes=False, told="One experiment, the same but for its loss.")


def networks(work: Work, names: Sequence[str], dims: str, assignments: Sequence[str], plan: Plan) -> dict[str, Any]:
    """Measures and trains every network in turn; all that was done is kept below the work's folder."""
    return _compare(work, NETWORKS, network_entries(names, DIMS[dims], assignments), plan)


def losses(
    work: Work, names: Sequence[str], choices: Path | None, assignments: Sequence[str], plan: Plan
) -> dict[str, Any]:
    """The same with every loss of a list."""
    listed = read_losses(choices or find_benchmark("losses"))
    return _compare(work, LOSSES, loss_entries(listed, names, assignments), plan)


def _compare(work: Work, kind: Kind, entries: Sequence[Entry], plan: Plan) -> dict[str, Any]:
    rows = first_stage(work, entries, plan, kind.phases)
    first = next(entry.experiment for entry in entries if entry.experiment is not None)  # the cases are those of all
    blind = work.blind(first) if plan.trains else None
    result = _report(work, kind, rows, [], blind, plan)  # hours of the second stage keep nobody waiting for the first
    if not plan.trains or not plan.best:
        return result
    return _report(work, kind, rows, second_stage(work, rows, plan), blind, plan)


def _report(
    work: Work, kind: Kind, rows: Sequence[Row], best: Sequence[Row], blind: Result | None, plan: Plan
) -> dict[str, Any]:
    """Prints and writes the tables; gives what `--json` prints. Raises MedsegError where nothing succeeded."""
    experiments = [row.entry.experiment for row in rows if row.entry.experiment is not None]
    costs = [result for row in rows for result in row.costs.values()]
    trained = [result for row in rows for results in row.trainings.values() for result in results]
    contents = row_contents(rows)
    parts = [head_line([*costs, *trained], experiments), _table(contents, kind), f"{kind.told} {_how(plan)}"]
    parts += _below(rows, contents, blind, plan)
    of_best = with_differences(row_contents(best), best)
    if best:
        longer = [result for row in best for result in row.trainings["minutes"]]
        head = head_line([*costs, *trained, *longer], experiments, plan.best_seeds)
        parts += [f"The best, for the steps of {plan.best_minutes:g} minutes each. {head}", _best_table(of_best, kind)]
        parts += cases_line(cases_of_all([row.trainings["minutes"] for row in best]), of_best, "equal_minutes_")
    facts = {"machine": one_machine([*costs, *trained]), "plan": asdict(plan), "blind": blind.answer if blind else None}
    result = publish(work, {**facts, "best": of_best}, contents, "\n\n".join(parts) + "\n")
    refuse_nothing(trained if plan.trains else costs, "training" if plan.trains else "measurement", work.output)
    return result


def _below(rows: Sequence[Row], contents: Sequence[Content], blind: Result | None, plan: Plan) -> list[str]:
    """What stands below a table of trainings."""
    among = cases_of_all([row.trainings.get(plan.ranking, []) for row in rows])
    told = [] if blind is None else [blind_line(blind, among)]
    return [*told, *cases_line(among, contents, f"equal_{plan.ranking}_")]


def _table(contents: Sequence[Content], kind: Kind) -> str:
    """Markdown with a line for each row; what all losses share (weights, arithmetic) is shown of networks only."""
    headers = [kind.noun, "dims", *(["batch x patch", "parameters M", "GFLOPs"] if kind.sizes else [])]
    headers += [f"s/patch {phase}" for phase in kind.phases] + [f"peak MB {phase}" for phase in kind.phases]
    headers += ["steps in the minutes", "Dice, equal minutes [95 % interval]", "Dice, equal steps"]
    return markdown(headers, [_cells(content, kind) for content in contents])


def _cells(one: Content, kind: Kind) -> list[str]:
    cells = [str(one["label"]), f"{one['dims']}D"]
    if kind.sizes:
        sizes = number(None, 0) if one["patch"] is None else f"{one['batch']} x {one['patch']}"
        cells += [sizes, number(one["parameters"], 2, 1e6), number(one["gflops"], 1)]
    cells += [_told(one[f"{phase}_error"]) or number(one[f"{phase}_seconds"], 3) for phase in kind.phases]
    cells += [number(one[f"{phase}_peak_bytes"], 0, 1e6) for phase in kind.phases]
    if (one["error"] or "").startswith("skipped"):
        return [*cells, number(None, 0), shortened(one["error"]), number(None, 0)]
    minutes = _told(one["equal_minutes_error"]) or dice_cell(one, "equal_minutes_")
    steps = _told(one["equal_steps_error"]) or number(one["equal_steps_dice"], 3)
    return [*cells, number(one["equal_minutes_steps"], 0), minutes, steps]


def _best_table(contents: Sequence[Content], kind: Kind) -> str:
    """Markdown with the second stage: longer trainings under several seeds."""
    headers = [kind.noun, "dims", "seeds", "steps", "Dice [95 % interval]", "less the first row [95 % interval]"]
    rows = [
        [
            one["label"],
            f"{one['dims']}D",
            number(one["equal_minutes_seeds"], 0),
            number(one["equal_minutes_steps"], 0),
            _told(one["equal_minutes_error"]) or dice_cell(one, "equal_minutes_"),
            interval(one, "difference", "+"),
        ]
        for one in contents
    ]
    return markdown(headers, rows)


def _told(error: str | None) -> str:
    """What stands in the place of a number that is missing because something failed."""
    return shortened(f"failed: {error}") if error else ""


def _how(plan: Plan) -> str:
    """What the columns mean."""
    trained = [f"the steps that {plan.minutes:g} minutes hold at its fastest measured step"] if plan.minutes else []
    trained += [f"{plan.steps} steps"] if plan.steps else []
    told = f" Each trained for {' and for '.join(trained)}, scored on whole cases. {INTERVALS}" if plan.trains else ""
    return (
        "GFLOPs: one forward pass of one patch, a multiply-add counts as two. "
        "Seconds: median of a step (forward, backward, optimizer) or of inference, over the patches of its batch. "
        "Peak: resident memory for the whole batch, weights and optimizer included, beyond what the process holds "
        f"without the network (on CUDA: what torch allocated).{told}"
    )
