"""The result of a benchmark as files: JSON for programs, CSV for spreadsheets, Markdown for a page such as README."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.evaluation import RepeatedMean, difference_of, mean_of
from medseg.experiment import ExperimentConfig
from medseg.io.atomic import atomic_write_text
from pipelines.benchmark.results import Result, described, one_machine
from pipelines.benchmark.stages import Budget, Row, cases_of_all, dice_of
from pipelines.benchmark.work import Work
from pipelines.locations import output_folder
from pipelines.process import plain

JSON, CSV, MARKDOWN = "benchmark.json", "benchmark.csv", "benchmark.md"
SCHEMA_VERSION = 2
INTERVALS = (
    "Intervals, 95 %: of one training a bootstrap over cases, in which the noise of the seed is not, so that another "
    "seed may well lie outside; of several seeds Student's t of the seeds' means and that bootstrap, squares of the "
    "margins added. A difference whose interval holds 0 cannot be told from no difference."
)
_NONE = "–"
_BUDGETS: tuple[Budget, ...] = ("minutes", "steps")
_LONGEST = 120  # characters of an error in a cell
Content = Mapping[str, Any]


def head_line(results: Sequence[Result], experiments: Sequence[ExperimentConfig], seeds: int = 1) -> str:
    """Machine, versions, precision, data and seeds of the results. Raises MedsegError where machines differ."""
    data = sorted({f"{one.data.manifest} {one.data.part}" for one in experiments})
    first = min(one.seed for one in experiments)
    seed = f"seed {first}" if seeds == 1 else f"seeds {first} to {first + seeds - 1}"
    found = sorted({result.answer["precision"] for result in results if result.answer and "precision" in result.answer})
    precision = f"{'mixed: ' if len(found) > 1 else ''}{', '.join(found)}" or "no precision known"
    return f"{described(one_machine(results))}; {precision}; {', '.join(data)}; {seed}."


def row_contents(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as flat values, each mean over the cases that all rows scored: None where something is not known."""
    among = {budget: cases_of_all([row.trainings.get(budget, []) for row in rows]) for budget in _BUDGETS}
    return [_row_content(row, among) for row in rows]


def with_differences(contents: Sequence[Content], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The contents, each with its Dice less that of the first row, paired by case and seed."""
    trained = [row.trainings["minutes"] for row in rows]
    among, found = cases_of_all(trained), list[dict[str, Any]]()
    for content, results in zip(contents, trained, strict=True):
        gain = None if results is trained[0] else gain_of(trained[0], results, among)
        found.append({**content, **flat(gain, "difference")})
    return found


def gain_of(before: Sequence[Result], after: Sequence[Result], among: Sequence[str]) -> RepeatedMean | None:
    """The paired difference of two sets of trainings; None where one of them failed."""
    if any(result.error for result in [*before, *after]):
        return None
    return difference_of([one.cases for one in before], [one.cases for one in after], among)


def flat(mean: RepeatedMean | None, name: str) -> dict[str, float | None]:
    """A mean and its interval as flat values."""
    low, high = (None, None) if mean is None or mean.interval is None else mean.interval
    return {name: None if mean is None else mean.value, f"{name}_low": low, f"{name}_high": high}


def dice_content(results: Sequence[Result], among: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """The Dice of one entry's trainings as flat values, with the cases that they scored and could not score."""
    mean = dice_of(results, among)
    failed = {case for result in results for case in result.failed_cases}
    every = failed.union(*(result.cases for result in results))
    values = {
        **flat(mean, "dice"),
        "cases": None if mean is None else mean.cases,
        "seeds": None if mean is None else mean.seeds,
        "scored": len(every) - len(failed),
        "of": len(every),
    }
    return {f"{prefix}{key}": value for key, value in values.items()}


def dice_cell(content: Content, prefix: str = "") -> str:
    """Dice with its interval, and how many cases could be scored where some could not."""
    shown = interval(content, f"{prefix}dice")
    scored, of = content[f"{prefix}scored"], content[f"{prefix}of"]
    return shown if scored == of or shown == _NONE else f"{shown} ({scored} of {of} cases)"


def blind_line(blind: Result, among: Sequence[str]) -> str:
    """What a prediction without an image reaches on the cases of the table."""
    mean = mean_of([blind.cases], among or None)
    if mean is None:
        return f"The Dice of a prediction blind to the image is not known: {blind.error or 'no case has one'}."
    return (
        "A prediction blind to the image, at each place the label that most training cases have there, has Dice "
        f"{mean.value:.3f} on the same cases."
    )


def cases_line(among: Sequence[str], contents: Sequence[Content], prefix: str = "") -> list[str]:
    """A sentence where some case could not be scored in some row; else nothing."""
    if all(content[f"{prefix}scored"] == content[f"{prefix}of"] for content in contents):
        return []
    return [f"Some cases could not be scored: every mean is over the {len(among)} that all rows scored."]


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a bar in a cell is masked."""
    lines = [list(headers), ["---"] * len(headers), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines
    )


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """A number for people, in units of `scale`, or a dash."""
    return _NONE if value is None else f"{value / scale:.{digits}f}"


def interval(content: Content, name: str, sign: str = "") -> str:
    """ "0.880 [0.871, 0.888]"; with the sign "+" as "+0.004 [-0.001, +0.009]"."""
    value, low, high = (content[key] for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return _NONE
    shown = f"{value:{sign}.3f}"
    return shown if low is None else f"{shown} [{low:{sign}.3f}, {high:{sign}.3f}]"


def shortened(error: str) -> str:
    """An error as it fits a cell."""
    return error if len(error) <= _LONGEST else f"{error[: _LONGEST - 3]}..."


def publish(work: Work, result: Mapping[str, Any], contents: Sequence[Content], page: str) -> dict[str, Any]:
    """Prints the page and writes it as benchmark.md, beside benchmark.json and benchmark.csv; gives what --json prints.

    Each file is there whole or not at all. Raises WriteError.
    """
    folder = output_folder(work.output)
    whole = {**result, "rows": contents, "folder": folder}
    text = json.dumps(plain({"schema_version": SCHEMA_VERSION, **whole}), indent=2, ensure_ascii=False)
    atomic_write_text(folder / JSON, text + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, list(contents[0]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(contents)
    atomic_write_text(folder / CSV, table.getvalue())
    atomic_write_text(folder / MARKDOWN, page)
    for line in ("", page, f"tables: {folder / MARKDOWN}"):
        work.console.say(line)
    return whole


def refuse_nothing(results: Sequence[Result], what: str, folder: Path) -> None:
    """Raises MedsegError where there are results and every one is a failure."""
    if results and all(result.error for result in results):
        raise MedsegError(f"every {what} failed; the first: {results[0].error}; the tables are in {folder}")


def _row_content(row: Row, among: Mapping[Budget, Sequence[str]]) -> dict[str, Any]:
    costs = {phase: (result.answer or {}) for phase, result in row.costs.items()}
    inference = costs.get("inference", {})
    content: dict[str, Any] = {"label": row.entry.label, "dims": row.entry.dims, **_settings(row.entry.experiment)}
    content |= {key: inference.get(key) for key in ("parameters", "gflops")}
    for phase in ("training", "inference"):
        for name in ("seconds", "fastest_s", "slowest_s", "peak_bytes", "batch", "precision"):
            content[f"{phase}_{name}"] = costs.get(phase, {}).get(name)
        content[f"{phase}_error"] = row.cost_error(phase) or None
    for budget in _BUDGETS:
        results = row.trainings.get(budget, [])
        content |= dice_content(results, among[budget], f"equal_{budget}_")
        done = [result.answer["steps"] for result in results if result.answer is not None]
        content[f"equal_{budget}_steps"] = sum(done) / len(done) if done else None
        content[f"equal_{budget}_error"] = row.error(budget) or None
    errors = [*map(row.error, _BUDGETS), *map(row.cost_error, costs)]
    first, kind = next(filter(None, errors), ""), "skipped" if row.entry.skipped else "failed"
    return {**content, "error": f"{kind}: {first}" if first else None}


def _settings(experiment: ExperimentConfig | None) -> dict[str, Any]:
    """What rows may differ in beside their networks."""
    if experiment is None:
        return dict.fromkeys(("batch", "patch", "optimizer", "learning_rate"))
    plan = experiment.training
    return {
        "batch": plan.batch_size,
        "patch": " x ".join(map(str, experiment.patch.size)),
        "optimizer": plan.optimizer.name,
        "learning_rate": plan.optimizer.learning_rate,
    }
