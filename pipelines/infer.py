"""`medseg infer`: images or DICOM studies in, segmentations on their own grids out; one bad input stops no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.config import suggestion
from medseg.errors import ConfigError, DataError, ModelError, WriteError
from medseg.io.dicom.rule import SeriesRule
from pipelines.console import Console
from pipelines.model_use import ModelUse
from pipelines.sources import list_sources

FORMATS = {
    "nifti": "NIfTI on the source grid (PNG for pictures, which know no mm; one a label where labels overlap)",
    "dicom-seg": "DICOM SEG, BINARY, that refers to the source series",
}


def infer(
    model: ModelUse,
    inputs: Sequence[Path],
    output: Path,
    formats: Sequence[str],
    rule: SeriesRule,
    explain: str | None = None,
) -> dict[str, Any]:
    """Segments every input and writes it before the next is read; inputs that fail are named at the end.

    A result that cannot be written stops the work, because the next could not be written either. The `rule` picks
    the series of a DICOM study; a modality that it names is taken at its word, even if it is not the model's. With
    `explain` ("attention") what attention weighed is written beside the labels.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"--format {name!r} is not known{suggestion(name, FORMATS)}")
    sources = list_sources(inputs, formats)
    from pipelines.explaining import Explaining
    from pipelines.locations import output_folder
    from pipelines.segmentations import RECORD, Record, all_or_none, write

    console = Console()
    trained, predictor = model.predictor()
    explaining = None if explain is None else Explaining(explain, trained, predictor, console)
    output_folder(output)
    record = Record(trained.card.title, model.assignments, sources)
    with record.kept(output), console.progress(len(sources), "segmenting") as steps:
        for source in sources:
            try:
                image, series = source.read(rule)
                if rule.modality is None:
                    trained.check_modality(image)
                segmentation = trained.segment(image, predictor)
                with all_or_none() as files:
                    files += write(segmentation, series, output, source.name, formats)
                    if explaining is not None:
                        explaining.write(image, segmentation, output, source.name, files)
                record.finish(source, segmentation, series, files)
            except (ConfigError, DataError, ModelError) as error:
                record.fail(source, error)
            except WriteError as error:
                record.fail(source, error)
                raise
            steps.advance(1, source.name)
    if record.done:
        record.show(console, output)
    if record.failed:
        reasons = "; ".join(list(record.failed.values())[:5]) + ("; ..." if len(record.failed) > 5 else "")
        whole = f"; all are in {output / RECORD}" if len(record.failed) < len(sources) else ""
        raise DataError(f"{len(record.failed)} of {len(sources)} inputs could not be segmented: {reasons}{whole}")
    return record.content
