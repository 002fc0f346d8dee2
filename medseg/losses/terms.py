"""The losses that stand alone; apart from the whole catalogue, so that a sum can name them without naming itself."""

from medseg.config import Catalogue
from medseg.losses.base import LossConfig
from medseg.losses.boundary import BoundaryConfig
from medseg.losses.boundary_ce import BoundaryCEConfig
from medseg.losses.cldice import ClDiceConfig
from medseg.losses.cross_entropy import CrossEntropyConfig
from medseg.losses.dice import DiceConfig
from medseg.losses.dice_ce import DiceCEConfig
from medseg.losses.focal import FocalConfig
from medseg.losses.focal_tversky import FocalTverskyConfig
from medseg.losses.generalised_dice import GeneralisedDiceConfig
from medseg.losses.hausdorff import HausdorffConfig
from medseg.losses.jaccard import JaccardConfig
from medseg.losses.lovasz import LovaszConfig
from medseg.losses.top_k import TopKConfig
from medseg.losses.tversky import TverskyConfig
from medseg.losses.unified_focal import UnifiedFocalConfig

BY_VOXEL: list[type[LossConfig]] = [CrossEntropyConfig, TopKConfig, FocalConfig]
BY_REGION: list[type[LossConfig]] = [
    DiceConfig,
    GeneralisedDiceConfig,
    JaccardConfig,
    TverskyConfig,
    FocalTverskyConfig,
    LovaszConfig,
]
BY_SHAPE: list[type[LossConfig]] = [BoundaryConfig, BoundaryCEConfig, HausdorffConfig, ClDiceConfig]

OURS: list[type[LossConfig]] = [DiceCEConfig, *BY_VOXEL, *BY_REGION, UnifiedFocalConfig, *BY_SHAPE]

TERMS = Catalogue[LossConfig]("losses", LossConfig, OURS)
