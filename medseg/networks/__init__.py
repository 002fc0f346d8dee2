"""The networks that an experiment can name; listing one here is all that it takes to offer and to test it."""

from medseg.config import Catalogue
from medseg.networks.attention_unet import AttentionUNetConfig
from medseg.networks.base import NetworkConfig
from medseg.networks.deeplabv3plus import DeepLabV3PlusConfig
from medseg.networks.fcn import FCNConfig
from medseg.networks.hrnet import HRNetConfig
from medseg.networks.mednext import MedNeXtConfig
from medseg.networks.pspnet import PSPNetConfig
from medseg.networks.residual_encoder_unet import ResidualEncoderUNetConfig
from medseg.networks.segformer import SegFormerConfig
from medseg.networks.segresnet import SegResNetConfig
from medseg.networks.setr import SETRConfig
from medseg.networks.smp import SMPConfig
from medseg.networks.swin_unet import SwinUNetConfig
from medseg.networks.swin_unetr import SwinUNETRConfig
from medseg.networks.unet import UNetConfig
from medseg.networks.unet_plus_plus import UNetPlusPlusConfig
from medseg.networks.unetr import UNETRConfig
from medseg.networks.vnet import VNetConfig

NETWORKS = Catalogue[NetworkConfig](
    "networks",
    [
        UNetConfig,
        ResidualEncoderUNetConfig,
        AttentionUNetConfig,
        UNetPlusPlusConfig,
        VNetConfig,
        SegResNetConfig,
        MedNeXtConfig,
        UNETRConfig,
        SwinUNETRConfig,
        SwinUNetConfig,
        SETRConfig,
        FCNConfig,
        DeepLabV3PlusConfig,
        PSPNetConfig,
        HRNetConfig,
        SegFormerConfig,
        SMPConfig,
    ],
)

__all__ = [
    "NETWORKS",
    "AttentionUNetConfig",
    "DeepLabV3PlusConfig",
    "FCNConfig",
    "HRNetConfig",
    "MedNeXtConfig",
    "NetworkConfig",
    "PSPNetConfig",
    "ResidualEncoderUNetConfig",
    "SETRConfig",
    "SMPConfig",
    "SegFormerConfig",
    "SegResNetConfig",
    "SwinUNETRConfig",
    "SwinUNetConfig",
    "UNETRConfig",
    "UNetConfig",
    "UNetPlusPlusConfig",
    "VNetConfig",
]
