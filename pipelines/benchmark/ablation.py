"""`medseg benchmark ablation`: a plain recipe, to which one part after another is added, and what each adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.experiment import ExperimentConfig
from pipelines.benchmark.agenda import Agenda, Job
from pipelines.benchmark.contest import dice_of, lasting, stepping
from pipelines.benchmark.ladder import Standing, climbed, read_ladder
from pipelines.benchmark.report import head_line, machine
from pipelines.benchmark.statistics import difference_of
from pipelines.benchmark.tables import MARKDOWN, Content, interval, markdown, mean_content, write
from pipelines.benchmark.work import Result, Workshop
from pipelines.console import Console
from pipelines.locations import find_benchmark, output_folder

_HOW = (
    "Dice and gains are means over cases and seeds; a gain is paired by case and seed. Intervals: bootstrap over cases "
    "and, with several seeds, over seeds too; one that holds 0 tells of no difference here."
)


@dataclass(frozen=True)
class Climb:
    """Which ladder, on what, and how long each rung that needs weights of its own is trained."""

    dims: int = 3
    rungs: Path | None = None
    weights: Path | None = None
    minutes: float = 10.0
    steps: int = 0  # instead of minutes
    seeds: int = 3


def ablation(workshop: Workshop, climb: Climb, assignments: Sequence[str]) -> dict[str, Any]:
    """Trains where a rung changes the training; where it changes the use of a model alone, the same weights serve."""
    agenda = Agenda(workshop, Console())
    ladder = read_ladder(climb.rungs or find_benchmark("ablation"))
    standings = list(climbed(ladder, climb.dims, climb.weights, assignments))
    with_weights = [one for number, one in enumerate(standings) if _is_new(standings, number)]
    trained = iter(_train(agenda, with_weights, climb))
    weights, results = list[Result](), list[list[Result]]()
    for number, standing in enumerate(standings):
        if _is_new(standings, number):
            weights = next(trained)
            results.append(weights)
        else:
            agenda.console.say(f"other use of the same weights: {standing.label}")
            results.append([_use(workshop, standing, one, climb, seed) for seed, one in enumerate(weights)])
    return _report(agenda, standings, results, climb)


def _is_new(standings: Sequence[Standing], number: int) -> bool:
    """Whether a rung needs a training of its own."""
    return number == 0 or not standings[number].only_uses(standings[number - 1])


def _train(agenda: Agenda, standings: Sequence[Standing], climb: Climb) -> list[list[Result]]:
    """A result for each rung and seed."""
    seconds = climb.minutes * 60 if not climb.steps else 0.0
    jobs = [Job(_budgeted(standing, climb, seed), seconds) for standing in standings for seed in range(climb.seeds)]
    results = agenda.train(jobs)
    return [results[start : start + climb.seeds] for start in range(0, len(results), climb.seeds)]


def _use(workshop: Workshop, standing: Standing, trained: Result, climb: Climb, seed: int) -> Result:
    return workshop.evaluate(_budgeted(standing, climb, seed), trained, standing.use())


def _budgeted(standing: Standing, climb: Climb, seed: int) -> ExperimentConfig:
    if climb.steps:
        return stepping(standing.experiment, climb.steps, seed)
    return lasting(standing.experiment, climb.minutes, seed)


def _report(
    agenda: Agenda, standings: Sequence[Standing], results: Sequence[list[Result]], climb: Climb
) -> dict[str, Any]:
    """Prints and writes the table; gives what `--json` prints."""
    facts, folder = machine(agenda.workshop.device), output_folder(agenda.workshop.output)
    befores = [None, *results[:-1]]
    contents = [
        {"label": standing.label, "trained": _is_new(standings, number), **_content(before, found)}
        for number, (standing, before, found) in enumerate(zip(standings, befores, results, strict=True))
    ]
    length = f"{climb.steps} steps" if climb.steps else f"{climb.minutes:g} minutes"
    head = head_line(facts, [standings[0].experiment], climb.seeds)
    page = f"{head} {climb.dims}D, {length} a training.\n\n{_table(contents)}\n\n{_HOW}\n"
    result = {"machine": facts, "plan": asdict(climb), "rows": contents, "folder": folder}
    write(folder, result, contents, page)
    agenda.console.say("")
    agenda.console.say(page)
    agenda.console.say(f"tables: {folder / MARKDOWN}")
    return result


def _content(before: Sequence[Result] | None, found: Sequence[Result]) -> dict[str, Any]:
    """The Dice of a rung, and what it gained over the rung before, as flat values."""
    gain = None
    if before is not None and dice_of(before) is not None and dice_of(found) is not None:
        gain = difference_of([one.cases for one in before], [one.cases for one in found])
    gained = {key: value for key, value in mean_content(gain, name="gain").items() if key.startswith("gain")}
    error = next((one.error for one in found if one.error), None)
    return {**mean_content(dice_of(found)), **gained, "error": error}


def _table(contents: Sequence[Content]) -> str:
    headers = ["each on top of those above", "trained anew", "Dice [95 % interval]", "gain over the line above [95 %]"]
    rows = [
        [
            one["label"],
            "yes" if one["trained"] else "same weights",
            interval(one, "dice") if one["error"] is None else f"failed: {one['error']}",
            interval(one, "gain", "+"),
        ]
        for one in contents
    ]
    return markdown(headers, rows)
