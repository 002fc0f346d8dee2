"""The networks that an experiment can name; listing one here is all that it takes to offer and to test it."""

from medseg.config import Catalogue
from medseg.networks.base import NetworkConfig
from medseg.networks.fully_convolutional.deeplabv3plus import DeepLabV3PlusConfig
from medseg.networks.fully_convolutional.fcn import FCNConfig
from medseg.networks.fully_convolutional.hrnet import HRNetConfig
from medseg.networks.fully_convolutional.pspnet import PSPNetConfig
from medseg.networks.fully_convolutional.smp import SMPConfig
from medseg.networks.transformers.segformer import SegFormerConfig
from medseg.networks.transformers.setr import SETRConfig
from medseg.networks.transformers.swin_unet import SwinUNetConfig
from medseg.networks.transformers.swin_unetr import SwinUNETRConfig
from medseg.networks.transformers.unetr import UNETRConfig
from medseg.networks.unets.attention_unet import AttentionUNetConfig
from medseg.networks.unets.mednext import MedNeXtConfig
from medseg.networks.unets.residual_encoder_unet import ResidualEncoderUNetConfig
from medseg.networks.unets.segresnet import SegResNetConfig
from medseg.networks.unets.unet import UNetConfig
from medseg.networks.unets.unet_plus_plus import UNetPlusPlusConfig
from medseg.networks.unets.vnet import VNetConfig

NETWORKS = Catalogue[NetworkConfig](
    "networks",
    NetworkConfig,
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
