"""The losses that an experiment can name; one that stands alone is listed in `terms`, and may then be summed too."""

from medseg.config import Catalogue
from medseg.losses.base import LossConfig, Part, build_loss
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
from medseg.losses.ramp import Ramp
from medseg.losses.sum import SumConfig, Term
from medseg.losses.terms import OURS
from medseg.losses.top_k import TopKConfig
from medseg.losses.tversky import TverskyConfig
from medseg.losses.unified_focal import UnifiedFocalConfig
from medseg.losses.voxel_counts import VoxelCounts, count_voxels

LOSSES = Catalogue[LossConfig]("losses", LossConfig, [*OURS, SumConfig])

__all__ = [
    "LOSSES",
    "BoundaryCEConfig",
    "BoundaryConfig",
    "ClDiceConfig",
    "CrossEntropyConfig",
    "DiceCEConfig",
    "DiceConfig",
    "FocalConfig",
    "FocalTverskyConfig",
    "GeneralisedDiceConfig",
    "HausdorffConfig",
    "JaccardConfig",
    "LossConfig",
    "LovaszConfig",
    "Part",
    "Ramp",
    "SumConfig",
    "Term",
    "TopKConfig",
    "TverskyConfig",
    "UnifiedFocalConfig",
    "VoxelCounts",
    "build_loss",
    "count_voxels",
]
