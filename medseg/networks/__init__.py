"""The networks that an experiment can name; listing one here is all that it takes to offer and to test it."""

from medseg.config import Catalogue
from medseg.networks.attention_unet import AttentionUNetConfig
from medseg.networks.base import NetworkConfig
from medseg.networks.swin_unetr import SwinUNETRConfig
from medseg.networks.unet import UNetConfig

NETWORKS = Catalogue[NetworkConfig]("networks", [UNetConfig, AttentionUNetConfig, SwinUNETRConfig])

__all__ = ["NETWORKS", "AttentionUNetConfig", "NetworkConfig", "SwinUNETRConfig", "UNetConfig"]
