"""The losses that stand alone; apart from the whole catalogue, so that a sum can name them without naming itself."""

from medseg.config import Catalogue
from medseg.losses.cross_entropy import CrossEntropyConfig
from medseg.losses.dice import DiceConfig
from medseg.losses.dice_ce import DiceCEConfig
from medseg.losses.focal import FocalConfig
from medseg.losses.tversky import TverskyConfig

TERMS = Catalogue("losses", [DiceCEConfig, DiceConfig, CrossEntropyConfig, TverskyConfig, FocalConfig])
