"""What the journeys of a comparison print and write: the head line, the tables and where they lie."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from medseg.errors import MedsegError
from pipelines.benchmark.agenda import Agenda
from pipelines.benchmark.contest import Plan, Row
from pipelines.benchmark.tables import MARKDOWN, best_table, contest_table, row_content, write
from pipelines.locations import output_folder


def machine(device: str) -> dict[str, Any]:
    """On what the numbers were measured; no date, so that the same measurement gives the same page."""
    import torch

    from medseg.devices import choose_device, choose_precision
    from medseg.reproducibility import cpu

    facts, target = cpu(), choose_device(device)
    name = facts["model"] if target.type == "cpu" else torch.cuda.get_device_name(target)
    cores = f"{facts['cores_allowed']} cores" if target.type == "cpu" else "CUDA"
    precision = str(choose_precision("auto", target)).removeprefix("torch.")
    versions = {package: importlib.metadata.version(package) for package in ("torch", "monai")}
    return {"device": name, "cores": cores, "precision": precision, **versions}


def head_line(facts: dict[str, Any], experiments: Sequence[Any], seeds: int = 1) -> str:
    """Machine, versions, precision, data and seeds in one line."""
    data = sorted({f"{one.data.manifest} fold {one.data.fold}" for one in experiments})
    first = min((one.seed for one in experiments), default=0)
    seed = f"seed {first}" if seeds == 1 else f"seeds {first} to {first + seeds - 1}"
    place = f"{facts['device']}, {facts['cores']}, torch {facts['torch']}, {facts['precision']}"
    return f"{place}; {', '.join(data)}; {seed}."


def report(agenda: Agenda, kind: str, rows: Sequence[Row], best: Sequence[Row], plan: Plan) -> dict[str, Any]:
    """Prints and writes the tables; gives what `--json` prints. Raises MedsegError where nothing succeeded."""
    folder, first = agenda.workshop.output, kind.removesuffix("es" if kind == "losses" else "s")
    facts = machine(agenda.workshop.device)
    experiments = [row.entry.experiment for row in rows if row.entry.experiment is not None]
    contents, of_best = [row_content(row) for row in rows], [row_content(row) for row in best]
    parts = [head_line(facts, experiments), contest_table(contents, first, kind == "networks"), _how(plan)]
    if best:
        parts += [f"The best, {plan.best_minutes:g} minutes each. {head_line(facts, experiments, plan.best_seeds)}"]
        parts += [best_table(of_best, first)]
    page = "\n\n".join(parts) + "\n"
    result = {"machine": facts, "plan": asdict(plan), "rows": contents, "best": of_best, "folder": folder}
    write(output_folder(folder), result, contents, page)
    agenda.console.say("")
    agenda.console.say(page)
    agenda.console.say(f"tables: {folder / MARKDOWN}")
    if all(content["error"] for content in contents):
        raise MedsegError(f"every training failed; the first: {rows[0].error}; the tables are in {folder}")
    return result


def _how(plan: Plan) -> str:
    """What the columns mean."""
    trained = [f"{plan.minutes:g} minutes from the start of the program"] if plan.minutes else []
    trained += [f"{plan.steps} steps"] if plan.steps else []
    told = "" if plan.only_cost else f"Each trained for {' and for '.join(trained)}, scored on whole cases. "
    return (
        "GFLOPs: one forward pass of one patch, a multiply-add counts as two. "
        "Seconds: median of a step (forward, backward, optimizer) or of inference, over the patches of its batch. "
        "Peak: resident memory for the whole batch (its size is in the CSV), weights and optimizer included, beyond "
        "what the process holds without the network (on CUDA: what torch allocated). "
        f"{told}Interval: bootstrap over cases."
    )
