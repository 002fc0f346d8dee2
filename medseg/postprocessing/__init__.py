"""The clean-up steps that an experiment can list; by default there are none, and a prediction stays as it is."""

from medseg.config import Catalogue
from medseg.postprocessing.base import PostprocessingConfig
from medseg.postprocessing.components import KeepLargestConfig, RemoveSmallConfig
from medseg.postprocessing.holes import FillHolesConfig

POSTPROCESSING = Catalogue[PostprocessingConfig](
    "postprocessing", PostprocessingConfig, [KeepLargestConfig, RemoveSmallConfig, FillHolesConfig]
)

__all__ = ["POSTPROCESSING", "FillHolesConfig", "KeepLargestConfig", "PostprocessingConfig", "RemoveSmallConfig"]
