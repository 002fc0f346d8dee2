"""`medseg manifest build` and `medseg manifest check`: from a folder of files to a list of cases to trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.console import Console
from pipelines.locations import find_manifest
from pipelines.process import FAILED, perform

if TYPE_CHECKING:
    from medseg.data.manifest_build import LayoutConfig
    from medseg.data.manifest_build.assemble import BuildOptions
    from medseg.data.manifest_check import CaseFacts, CheckReport

app = typer.Typer(name="manifest", help="Build and check lists of cases.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, all other text to standard error.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show log messages and where an error came from.")]


@app.command("build")
def build_command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder with images and labels.")],
    layout: Annotated[
        str | None, typer.Option(metavar="NAME", help="nnunet, msd, bids, folders or case_folders; default: detected.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write; default: data_manifests/<name>.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; default: the folder's.")] = None,
    folds: Annotated[int, typer.Option(metavar="N", min=0, help="Folds for validation, by patient; 0: none.")] = 5,
    skip_unmatched: Annotated[
        bool, typer.Option("--skip-unmatched", help="Leave out files that cannot be paired or read, and list them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a manifest that the folder holds.")] = False,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the layout.")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write dataset.yaml and cases.csv for a folder of images and labels."""

    def journey() -> object:
        from medseg.data.manifest_build.assemble import BuildOptions, dataset_name

        options = BuildOptions(name=name, folds=folds, skip_unmatched=skip_unmatched)
        folder = output or Path("data_manifests") / dataset_name(source, options)
        return build(source, _layout(source, layout, assignments or []), folder, options, force)

    perform(journey, as_json, verbose)


@app.command("check")
def check_command(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="Folder, or the name of a shipped manifest.")],
    data_root: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the manifest's files lie.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Open every file of a manifest and list all that is wrong."""
    errors: list[str] = []

    def journey() -> object:
        result = check(manifest, data_root)
        errors.extend(result.pop("refused"))
        return result

    perform(journey, as_json, verbose)
    if errors:
        typer.echo(f"error: {errors[0]}", err=True)
        raise typer.Exit(FAILED)


def build(
    source: Path, layout: LayoutConfig, folder: Path, options: BuildOptions, force: bool = False
) -> dict[str, object]:
    """Builds and writes a manifest, with `force` in place of one that is there; returns what `--json` prints."""
    from medseg.data.manifest import refuse_overwriting, write_manifest
    from medseg.data.manifest_build.assemble import build_manifest

    console = Console()
    if not force:
        refuse_overwriting(folder)  # before hours of reading
    with console.progress(None, "cases read") as steps:
        built = build_manifest(source, layout, options, lambda done, total, case: steps.advance(note=f"of {total}"))
    write_manifest(built.manifest, folder, force)
    for note in built.notes:
        console.say(note)
    for skipped in built.skipped:
        console.say(f"skipped: {skipped}")
    dataset = built.manifest.dataset
    patients = len({case.patient for case in built.manifest.cases})
    console.say(f"{len(built.manifest.cases)} cases of {patients} patients, written to {folder}")
    console.say(f"channels: {', '.join(dataset.channels)}")
    console.say(f"labels: {', '.join(f'{label.name} = {label.value}' for label in dataset.labels.labels)}")
    console.say(f"next: complete licence, source and names in {folder / 'dataset.yaml'}, then medseg manifest check")
    return {
        "folder": folder,
        "cases": len(built.manifest.cases),
        "digest": built.manifest.digest,
        "skipped": built.skipped,
        "notes": built.notes,
    }


def check(manifest: str, data_root: Path | None) -> dict[str, Any]:
    """Checks a manifest and prints facts and findings; `refused` of the result is why it must not be used, if so."""
    from medseg.data.download import resolve_data_root
    from medseg.data.manifest import read_dataset, read_manifest
    from medseg.data.manifest_check import check_manifest
    from pipelines.study import cache_folder

    console = Console()
    folder = find_manifest(manifest)
    root = resolve_data_root(read_dataset(folder), data_root, cache_folder())
    read = read_manifest(folder, root)
    with console.progress(len(read.cases), "cases checked") as steps:
        report = check_manifest(read, root, lambda done, total, case: steps.advance())
    _show(console, report)
    cases = {finding.case for finding in report.errors}
    refused = f"{folder}: {len(report.errors)} errors in {len(cases)} of {len(read.cases)} cases, listed above"
    fix = "correct the files, or take the cases out of cases.csv"
    return {
        "manifest": read.dataset.name,
        "digest": read.digest,
        "errors": len(report.errors),
        "findings": [asdict(finding) for finding in report.findings],
        "cases": [asdict(facts) for facts in report.facts],
        "refused": [f"{refused}; the first: {_first(report)}; {fix}"] if report.errors else [],
    }


def _first(report: CheckReport) -> str:
    """The first error, with its case and file."""
    first = report.errors[0]
    file = "" if first.file in first.message else f"{first.file}: "
    return first.message if f"case {first.case}" in first.message else f"case {first.case}: {file}{first.message}"


def _show(console: Console, report: CheckReport) -> None:
    """The facts of each case, then what is wrong."""
    names = list(dict.fromkeys(name for facts in report.facts for name in facts.labels))
    unit = "ml" if any(facts.unit == "mm" for facts in report.facts) else "px"
    headers = ["case", "fold", "shape", "spacing", "axes", "lowest", "highest", *[f"{name} {unit}" for name in names]]
    console.table(headers, [_row(facts, names) for facts in report.facts])
    if report.findings:
        console.table(
            ["severity", "case", "file", "what"],
            [(one.severity, one.case, one.file, one.message) for one in report.findings],
            title="\nfindings",
        )
    warnings = len(report.findings) - len(report.errors)
    console.say(f"{len(report.facts)} cases read, {len(report.errors)} errors, {warnings} warnings")


def _row(facts: CaseFacts, names: Sequence[str]) -> list[object]:
    shape = " x ".join(map(str, facts.shape))
    spacing = " x ".join(f"{size:.4g}" for size in facts.spacing)
    volumes = [facts.labels.get(name) for name in names]
    return [facts.case, facts.fold, shape, f"{spacing} {facts.unit}", facts.orientation, *facts.intensity, *volumes]


def _layout(source: Path, layout: str | None, assignments: Sequence[str]) -> LayoutConfig:
    """The layout that was named, or detected, with its settings changed."""
    from medseg.config import apply_assignments, validate
    from medseg.data.manifest_build import LAYOUTS
    from medseg.data.manifest_build.assemble import detect_layout

    base = {} if layout is not None else detect_layout(source).model_dump()
    entry = LAYOUTS[layout or str(base["name"])]
    validated = validate(entry, apply_assignments(base, assignments), "medseg manifest build --set")
    return validated
