"""The attention modules that the U-Net family takes; listing one here is all that it takes to offer and to test it."""

from medseg.config import Catalogue
from medseg.networks.attention.base import AttentionConfig, Place, placing_problem
from medseg.networks.attention.cbam import CBAMConfig
from medseg.networks.attention.gate import GateConfig
from medseg.networks.attention.self_attention import SelfAttentionConfig
from medseg.networks.attention.spatial import SpatialConfig
from medseg.networks.attention.squeeze_excitation import SqueezeExcitationConfig

ATTENTIONS = Catalogue[AttentionConfig](
    "attentions", AttentionConfig, [SqueezeExcitationConfig, SpatialConfig, CBAMConfig, SelfAttentionConfig, GateConfig]
)

__all__ = [
    "ATTENTIONS",
    "AttentionConfig",
    "CBAMConfig",
    "GateConfig",
    "Place",
    "SelfAttentionConfig",
    "SpatialConfig",
    "SqueezeExcitationConfig",
    "placing_problem",
]
