"""The `medseg` command: verbs, flags and their help. Journeys are imported when called, so that help is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.benchmark.verbs import app as benchmark_app
from pipelines.manifest import app as manifest_app
from pipelines.process import checked_device, last_resort, perform

app = typer.Typer(
    name="medseg",
    help="Medical image segmentation: from a manifest of studies to trained models, results and their record.",
    epilog="For research use. Start with: medseg demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback with local variables could show patient data
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from medseg import __version__

        typer.echo(f"medseg {__version__}")
        raise typer.Exit


Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
]
DataRoot = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the manifest's files lie.")]
Device = Annotated[str, typer.Option(callback=checked_device, help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, all other text to standard error.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show log messages and where an error came from.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained model or of a run.")]


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything made.")] = Path("medseg-demo"),
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Everything once, on generated data: train, infer, evaluate; minutes on a laptop."""

    def journey() -> object:
        from pipelines.demo import demo

        return demo(output=output, device=device)

    perform(journey, as_json, verbose)


@app.command()
def plan(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="Folder, or the name of a shipped manifest.")],
    minutes: Annotated[float, typer.Option(metavar="M", min=0.1, help="Length of the training.")] = 60.0,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory that it may use, as 24GB; default: 60 % of the free."),
    ] = None,
    data_root: DataRoot = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The YAML file; default: NAME_plan.yaml here.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write an experiment for a data set, sized to memory and time by measurement, with a reason for every choice."""

    def journey() -> object:
        from pipelines.plan import plan

        return plan(manifest, data_root, output, minutes, memory, device)

    perform(journey, as_json, verbose)


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a shipped config.")],
    assignments: Assignments = None,
    data_root: DataRoot = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of all runs.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the forecast: time, memory, disk.")] = False,
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train the network that a config describes, and keep the model and the record of the run."""

    def journey() -> object:
        from pipelines.train import train

        return train(
            config=config,
            assignments=assignments or [],
            data_root=data_root,
            output=output,
            device=device,
            dry_run=dry_run,
        )

    perform(journey, as_json, verbose)


@app.command("cross-validate")
def cross_validate(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a shipped config.")],
    assignments: Assignments = None,
    data_root: DataRoot = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for all of it; default: runs/NAME-cross-validation.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Leave out each value of a column instead of each fold.")
    ] = None,
    parallel: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings side by side.")] = 1,
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train once for each fold, score every case by the network that never saw it, and join the networks.

    What is done is kept: after Ctrl-C the same command goes on.
    """

    def journey() -> object:
        from pipelines.cross_validate import cross_validate

        return cross_validate(config, assignments or [], data_root, output, by, parallel, device)

    perform(journey, as_json, verbose)


@app.command()
def sweep(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file that says what is varied.")],
    data_root: DataRoot = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for all of it; default: runs/NAME-sweep.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Search the settings of an experiment with Optuna, one training after the other.

    What is done is kept: after Ctrl-C the same command goes on; on several machines, they share the work.
    """

    def journey() -> object:
        from pipelines.sweep import sweep

        return sweep(config, data_root, output, device)

    perform(journey, as_json, verbose)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run to go on with.")],
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Go on with a training that was stopped."""

    def journey() -> object:
        from pipelines.resume import resume

        return resume(run=run, device=device)

    perform(journey, as_json, verbose)


@app.command("pseudo-label")
def pseudo_label(
    model: Model,
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="Folder, or the name of a shipped manifest.")],
    data_root: Annotated[Path, typer.Option(metavar="DIR", help="Where the manifest's files lie.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The new manifest and its labels, in the data root.")],
    confidence: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="Probability below which a voxel is ignored.")
    ] = 0.9,
    share: Annotated[
        float, typer.Option(metavar="S", min=0, max=1, help="Sure foreground voxels below which a case is left out.")
    ] = 0.9,
    assignments: Assignments = None,
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Label cases that have no label where a model is sure, and write a manifest to train on."""

    def journey() -> object:
        from pipelines.model_use import ModelUse
        from pipelines.pseudo_label import Demands, pseudo_label

        use = ModelUse(model, tuple(assignments or ()), device)
        return pseudo_label(use, manifest, data_root, output, Demands(confidence, share))

    perform(journey, as_json, verbose)


@app.command()
def evaluate(
    model: Model,
    manifest: Annotated[str | None, typer.Argument(metavar="[MANIFEST]", help="Default: the model's own.")] = None,
    fold: Annotated[int | None, typer.Option(metavar="N", help="Cases of this fold; default: the model's.")] = None,
    assignments: Assignments = None,
    data_root: DataRoot = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the scores; default: evaluation-DATASET-foldN beside the model."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Score a model on the cases of a manifest, each on the grid of its own image."""

    def journey() -> object:
        from pipelines.evaluate import evaluate
        from pipelines.model_use import ModelUse

        use = ModelUse(model, tuple(assignments or ()), device)
        return evaluate(model=use, manifest=manifest, fold=fold, data_root=data_root, output=output)

    perform(journey, as_json, verbose)


@app.command()
def infer(
    model: Model,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Images, folders of images or of a DICOM study.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the segmentations.")],
    formats: Annotated[
        list[str] | None, typer.Option("--format", metavar="NAME,...", help="nifti, dicom-seg, or both.")
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="DICOM series to take: '*T1*' (description), or key=value; may be repeated."),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="Modality of the series: MR, CT, PT; it may be another than the model's."),
    ] = None,
    explain: Annotated[
        str | None, typer.Option(metavar="WHAT", help="attention: what it weighed, as NIfTI and pictures.")
    ] = None,
    assignments: Assignments = None,
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Segment images or DICOM studies."""

    def journey() -> object:
        from pipelines.infer import infer
        from pipelines.model_use import ModelUse
        from pipelines.sources import series_rule

        use = ModelUse(model, tuple(assignments or ()), device)
        names = [name.strip() for given in formats or ["nifti"] for name in given.split(",") if name.strip()]
        rule = series_rule(series or [], modality)
        return infer(model=use, inputs=inputs, output=output, formats=names, rule=rule, explain=explain)

    perform(journey, as_json, verbose)


app.add_typer(manifest_app, name="manifest")
app.add_typer(benchmark_app, name="benchmark")


@app.command("list")
def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="networks, losses, transforms, settings, configs, manifests ...; none: all kinds.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One of these: show its settings.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the names that a config or a command may use, or the settings of one of them."""

    def journey() -> object:
        from pipelines.listing import listing

        return listing(kind, name)

    perform(journey, as_json, verbose)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="[experiment|dataset]", help="Which file's schema.")] = "experiment",
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to a file.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Print the JSON Schema of a config or dataset.yaml, for an editor to complete and check it."""

    def journey() -> object:
        from pipelines.schema import schema

        return schema(kind, output)

    perform(journey, as_json, verbose)


@app.command()
def doctor(as_json: Json = False, verbose: Verbose = False) -> None:
    """Show what this machine has, what is missing, and what to do about it."""

    def journey() -> object:
        from pipelines.doctor import doctor

        return doctor()

    perform(journey, as_json, verbose)


def main() -> None:
    """Entry point of the console script."""
    with last_resort():
        app(prog_name="medseg")


if __name__ == "__main__":
    main()
