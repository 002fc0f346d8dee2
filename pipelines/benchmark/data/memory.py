"""Whether more cases need more memory: a fresh process draws patches from some cases, another from many times more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg.data.augmentation import Affine, Brightness, Contrast, Noise
from medseg.data.cache import Cache
from medseg.data.dataset import Case
from medseg.data.loaders import Patches, batches
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.data.patches import PatchSettings
from medseg.data.phantoms import phantom
from medseg.data.prepared_cases import PreparedCases, prepared_cases
from medseg.data.preprocessing import Preprocessing
from medseg.devices import usable_cores
from medseg.io import write_nifti
from pipelines.benchmark.data.crops import PHANTOMS
from pipelines.benchmark.data.rounds import Comparison
from pipelines.benchmark.work import Work
from pipelines.children import ChildError
from pipelines.console import Console
from pipelines.stopping import patient_signals

_STATUS, _ANONYMOUS = Path("/proc/self/status"), "RssAnon:"  # proc(5)
_SHAPE, _PATCH, _BATCH = (40, 48, 32), (32, 40, 32), 4
_LIMIT_BYTES = 10**12


def cases_on_disk(folder: Path, cases: int, times: int, console: Console) -> list[tuple[int, Path]]:
    """Phantoms, each of its own content: a manifest of the first `cases`, one of `times` as many, all in the cache."""
    folder.mkdir()
    made = [_case(folder, number) for number in range(cases * times)]
    found = []
    for count in (cases, len(made)):
        manifest = Manifest(PHANTOMS, tuple(made[:count]), folder / f"manifest-{count}")
        write_manifest(manifest, manifest.folder)
        found.append((count, manifest.folder))
    with console.progress(len(made), "preparing cases") as steps:
        _prepared(manifest, folder, min(usable_cores(), len(made)), steps.advance)
    return found


def memory_needed(
    work: Work, folder: Path, manifests: Sequence[tuple[int, Path]], patches: int
) -> tuple[list[Comparison], list[str]]:
    """Megabytes that each of the two processes holds for itself alone after it drew `patches` patches; and notes.

    Counted is anonymous memory, which only swapping could free; pages of the cache's files, which the system may take
    back at any time, are not. The process draws, pads and augments them itself, without workers.
    """
    found = []
    for count, manifest in manifests:
        work.console.say(f"memory of a process that draws {patches} patches from {count} cases")
        arguments = ["benchmark", "drawing", str(manifest), "--data-root", str(folder), "--patches", str(patches)]
        try:
            with patient_signals() as is_asked:
                found.append(work.medseg(arguments, folder / f"drawing-{count}.log", is_asked)["anonymous_bytes"])
        except ChildError as error:  # what was measured before is worth its table
            return [], [f"Memory was not measured: {error}."]
    if None in found:
        return [], ["Memory was not measured: only Linux tells what a process holds for itself alone."]
    few, many = (size / 1e6 for size in found)
    (of_few, _), (of_many, _) = manifests
    both = Comparison(f"memory to draw from {of_many} cases", "MB", [many], f"from {of_few} cases", [few])
    return [both], [f"{of_many} cases need {many - few:+.1f} MB beside {of_few} cases."]


def draw(manifest: Path, root: Path, patches: int) -> dict[str, Any]:
    """What a process holds for itself alone after it drew so many patches; run in a fresh process."""
    cases = _prepared(read_manifest(manifest, root), root)
    augmentation = (Affine(), Brightness(), Contrast(), Noise())
    stream = Patches(cases, PatchSettings(size=_PATCH), augmentation, seed=0)
    drawn = 0
    for batch in batches(stream, _BATCH, range(-(-patches // _BATCH)), workers=0):
        drawn += len(batch["image"])
    return {"cases": len(cases), "patches": drawn, "anonymous_bytes": anonymous_bytes()}


def anonymous_bytes() -> int | None:
    """Resident memory of this process that belongs to no file; None where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(_ANONYMOUS)), None)


def _case(folder: Path, number: int) -> Case:
    """A phantom that no other number has, as files."""
    names = f"image{number}.nii.gz", f"label{number}.nii.gz"
    image, label = phantom(number, _SHAPE)
    write_nifti(image, folder / names[0])
    write_nifti(label, folder / names[1])
    return Case(f"p{number}", f"p{number}", None, names[:1], names[1])


def _prepared(
    manifest: Manifest, folder: Path, workers: int = 0, done: Callable[[int], None] = lambda count: None
) -> PreparedCases:
    """As a training finds them: what the cache in the folder holds is checked and used."""
    cache = Cache(folder / "cache", _LIMIT_BYTES)
    return prepared_cases(manifest, manifest.cases, folder, Preprocessing(), cache, workers, done)
