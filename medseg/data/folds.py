"""Which patients are held back for validation in which fold, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from medseg.errors import ManifestError

NNUNET_FOLDS, NNUNET_SEED = 5, 12345


def assign_folds(patients: Iterable[str], folds: int = NNUNET_FOLDS, seed: int = NNUNET_SEED) -> dict[str, int]:
    """A fold for each patient, all their cases with them: sizes differ by one at most.

    The rule is scikit-learn's KFold(folds, shuffle=True, random_state=seed) over the sorted names: shuffle, then cut
    into blocks, the first ones longer. With one case a patient, 5 folds and seed 12345 this is nnU-Net's own split.
    """
    names = sorted(set(patients))
    if folds < 2 or folds > len(names):
        raise ManifestError(
            f"{folds} folds cannot be made of {len(names)} patients; give --folds 2 to {len(names)}, or 0 for none"
        )
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)
    blocks = np.array_split(order, folds)
    return {names[index]: fold for fold, block in enumerate(blocks) for index in sorted(block.tolist())}
