"""What every clean-up step answers, so that a model applies whichever its experiment lists."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medseg.config import NamedSettings, suggestion
from medseg.errors import ConfigError
from medseg.labels import LabelSet
from medseg.volume import Segmentation


class PostprocessingConfig(NamedSettings):
    """Base of the steps that turn a segmentation into a cleaner one on the same grid; the input stays as it is."""

    @abstractmethod
    def apply(self, segmentation: Segmentation) -> Segmentation:
        """The segmentation after this step, with a note for each label that changed."""


def names_to_clean(wanted: Sequence[str] | None, labels: LabelSet, where: str, regions: bool = True) -> list[str]:
    """The labels (and regions, where they make sense) that a step works on; each label by itself if none is named."""
    known = [*labels.names, *(labels.regions if regions else [])]
    for name in wanted or []:
        if name not in known:
            raise ConfigError(f"postprocessing {where}.labels: {name!r} cannot be cleaned{suggestion(name, known)}")
    return labels.names if wanted is None else list(wanted)


def without(array: np.ndarray, labels: LabelSet, name: str, removed: np.ndarray) -> np.ndarray:
    """A label array with some voxels of one label or region made background."""
    cleaned = array.copy()
    if labels.is_exclusive:
        cleaned[removed] = 0
        return cleaned
    for member in labels.regions.get(name, (name,)):
        cleaned[labels.names.index(member)][removed] = False
    return cleaned


def cleaned(segmentation: Segmentation, array: np.ndarray, notes: Sequence[str]) -> Segmentation:
    """The segmentation with another array, and notes of what was done."""
    provenance = replace(segmentation.provenance, notes=(*segmentation.provenance.notes, *notes))
    return replace(segmentation, array=array, provenance=provenance)
