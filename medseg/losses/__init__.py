"""The losses that an experiment can name; one that stands alone is listed in `terms`, and may then be summed too."""

from medseg.config import Catalogue
from medseg.losses.base import LossConfig, build_loss
from medseg.losses.cross_entropy import CrossEntropyConfig
from medseg.losses.dice import DiceConfig
from medseg.losses.dice_ce import DiceCEConfig
from medseg.losses.focal import FocalConfig
from medseg.losses.sum import SumConfig, Term
from medseg.losses.terms import TERMS
from medseg.losses.tversky import TverskyConfig

LOSSES = Catalogue("losses", [*(entry for _, entry in TERMS), SumConfig])

__all__ = [
    "LOSSES",
    "CrossEntropyConfig",
    "DiceCEConfig",
    "DiceConfig",
    "FocalConfig",
    "LossConfig",
    "SumConfig",
    "Term",
    "TverskyConfig",
    "build_loss",
]
