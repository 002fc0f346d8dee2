"""The sub-verbs of `medseg benchmark`: flags and help; journeys are imported when called, so that help is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.process import checked_device, perform

app = typer.Typer(
    name="benchmark",
    help="Compare networks, losses, or the parts of a recipe; measure the way of data to a network.",
    no_args_is_help=True,
)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; default: all.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of each; may be repeated.")
]
DataRoot = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the manifest's files lie.")]
Device = Annotated[str, typer.Option(callback=checked_device, help="auto, cpu, cuda or cuda:N.")]
Minutes = Annotated[float, typer.Option(metavar="M", min=0, help="Equal minutes for each; 0: leave out.")]
Steps = Annotated[int, typer.Option(metavar="N", min=0, help="Equal steps for each; 0: leave out.")]
Best = Annotated[int, typer.Option(metavar="N", min=0, help="How many go on to the second stage; 0: none.")]
BestMinutes = Annotated[float, typer.Option(metavar="M", min=0.01, help="Minutes of the second stage.")]
BestSeeds = Annotated[int, typer.Option(metavar="N", min=1, help="Seeds of the second stage.")]
OnlyCost = Annotated[bool, typer.Option("--only-cost", help="Weights, arithmetic, time and memory; train nothing.")]
Output = Annotated[Path, typer.Option(metavar="DIR", help="Folder for all results; the same one goes on.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, all other text to standard error.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show log messages and where an error came from.")]


@app.command("networks")
def networks_command(
    names: Names = None,
    dims: Annotated[Literal["2", "3", "both"], typer.Option(help="2D, 3D or both.")] = "both",
    minutes: Minutes = 2.0,
    steps: Steps = 100,
    best: Best = 5,
    best_minutes: BestMinutes = 10.0,
    best_seeds: BestSeeds = 3,
    only_cost: OnlyCost = False,
    assignments: Assignments = None,
    data_root: DataRoot = None,
    output: Output = Path("benchmark-networks"),
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Every shipped network on the hippocampus, in 3D and slice by slice: cost, and Dice for equal minutes and steps.

    What is done is kept: after Ctrl-C the same command goes on.
    """

    def journey() -> object:
        from pipelines.benchmark.comparison import networks
        from pipelines.benchmark.stages import Plan
        from pipelines.benchmark.work import Work

        plan = Plan(minutes, steps, best, best_minutes, best_seeds, only_cost)
        return networks(Work.on(device, output, data_root), names or [], dims, assignments or [], plan)

    perform(journey, as_json, verbose)


@app.command("losses")
def losses_command(
    names: Names = None,
    choices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="List of losses; default: the shipped benchmarks/losses.yaml.")
    ] = None,
    minutes: Minutes = 2.0,
    steps: Steps = 100,
    best: Best = 5,
    best_minutes: BestMinutes = 10.0,
    best_seeds: BestSeeds = 3,
    only_cost: OnlyCost = False,
    assignments: Assignments = None,
    data_root: DataRoot = None,
    output: Output = Path("benchmark-losses"),
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Every loss on one 3D network: time and memory of a step, and Dice for equal minutes and steps."""

    def journey() -> object:
        from pipelines.benchmark.comparison import losses
        from pipelines.benchmark.stages import Plan
        from pipelines.benchmark.work import Work

        plan = Plan(minutes, steps, best, best_minutes, best_seeds, only_cost)
        return losses(Work.on(device, output, data_root), names or [], choices, assignments or [], plan)

    perform(journey, as_json, verbose)


@app.command("ablation")
def ablation_command(
    dims: Annotated[Literal["2", "3"], typer.Option(help="2D or 3D.")] = "3",
    rungs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The ladder; default: the shipped benchmarks/ablation.yaml.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of a pretrained encoder, for the rung that needs them.")
    ] = None,
    minutes: Annotated[float, typer.Option(metavar="M", min=0.01, help="Minutes of each training.")] = 10.0,
    steps: Annotated[int, typer.Option(metavar="N", min=0, help="Steps of each training, instead of minutes.")] = 0,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings of each rung.")] = 3,
    assignments: Assignments = None,
    data_root: DataRoot = None,
    output: Output = Path("benchmark-ablation"),
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """A plain U-Net, to which one part after another is added: what each really adds, with intervals."""

    def journey() -> object:
        from pipelines.benchmark.ablation import AblationPlan, ablation
        from pipelines.benchmark.work import Work

        plan = AblationPlan(int(dims), rungs, weights, minutes, steps, seeds)
        return ablation(Work.on(device, output, data_root), plan, assignments or [])

    perform(journey, as_json, verbose)


@app.command("data")
def data_command(
    config: Annotated[
        str, typer.Argument(metavar="[CONFIG]", help="YAML file, or the name of a shipped config.")
    ] = "hippocampus_unet3d",
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Rounds, in each of which all take turns.")] = 5,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Training steps of a round.")] = 20,
    batches: Annotated[int, typer.Option(metavar="N", min=1, help="Batches of patches of a round.")] = 100,
    crops: Annotated[int, typer.Option(metavar="N", min=1, help="Crops of a round.")] = 10,
    volume: Annotated[
        tuple[int, int, int], typer.Option(metavar="X Y Z", min=10, help="Voxels that the crops come from.")
    ] = (320, 320, 160),
    times: Annotated[int, typer.Option(metavar="N", min=2, help="Times the cases, for their memory.")] = 20,
    patches: Annotated[int, typer.Option(metavar="N", min=1, help="Patches drawn to measure memory.")] = 640,
    assignments: Assignments = None,
    data_root: DataRoot = None,
    output: Output = Path("benchmark-data"),
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """The data of an experiment: do they keep up with the training, and with what other libraries make of them?

    Also the time of a crop from a large volume on disk, and the memory that more cases need. All in one run of minutes.
    """

    def journey() -> object:
        from pipelines.benchmark.data.journey import DataPlan, data
        from pipelines.benchmark.work import Work

        plan = DataPlan(rounds, steps, batches, crops, volume, times, patches)
        return data(Work.on(device, output, data_root), config, assignments or [], plan)

    perform(journey, as_json, verbose)


@app.command("cost", hidden=True)
def cost_command(
    experiment: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of an experiment.")],
    phase: Annotated[Literal["training", "inference"], typer.Option(help="Which work is measured.")] = "inference",
    repetitions: Annotated[int, typer.Option(metavar="N", min=1, help="Times that it is measured.")] = 9,
    device: Device = "auto",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """What one network costs; the other verbs start this in a fresh process, so that memory can be told."""

    def journey() -> object:
        from pipelines.benchmark.costing import cost

        return cost(experiment, phase, device, repetitions)

    perform(journey, as_json, verbose)


@app.command("blind", hidden=True)
def blind_command(
    experiment: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of an experiment.")],
    data_root: DataRoot = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """What a prediction reaches that never looks at the image; the other verbs start this."""

    def journey() -> object:
        from pipelines.benchmark.blind import blind

        return blind(experiment, data_root)

    perform(journey, as_json, verbose)


@app.command("drawing", hidden=True)
def drawing_command(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Folder of a manifest.")],
    data_root: Annotated[Path, typer.Option(metavar="DIR", help="Where the manifest's files and their cache lie.")],
    patches: Annotated[int, typer.Option(metavar="N", min=1, help="Patches that are drawn.")] = 640,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """What a process needs to draw patches from a manifest's cases; `data` starts this, so that memory can be told."""

    def journey() -> object:
        from pipelines.benchmark.data.memory import draw

        return draw(manifest, data_root, patches)

    perform(journey, as_json, verbose)
