"""What the Mix Transformers of segmentation-models-pytorch ask of a size, known without building one."""

from __future__ import annotations

import math

_STEP = 32  # pixels: tokens lie at stride 4, and the first attention merges 8 x 8 of them


def is_mix_transformer(encoder: str) -> bool:
    """Whether it is one of `mit_b0` to `mit_b5` (Xie et al., NeurIPS 2021)."""
    return encoder.startswith("mit_b")


def step_of(encoder: str, decoder_step: int) -> int:
    """What a 2D size must be a multiple of, by the decoder's step and, however shallow it is cut, the encoder's."""
    return math.lcm(decoder_step, _STEP) if is_mix_transformer(encoder) else decoder_step
