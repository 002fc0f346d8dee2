"""Pretrained weights of an encoder from a file, checked one by one, because half of them look like all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.networks.encoders.mix_transformer import is_mix_transformer
from medseg.networks.encoders.smp_encoders import TIMM, check_encoder, library, make_encoder
from medseg.networks.tensor_files import file_digest, first_line, read_tensors

RGB = 3
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.")
_HEADS = ("fc.", "_fc.", "linear.", "last_linear.", "classifier.", "head.")  # what the libraries' own loaders drop
_OUTSIDE = (*_HEADS, "decoder.", "segmentation_head.", "classification_head.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # denselayer1.norm.1.weight, now norm1.weight
_SHOWN = 3


def load_encoder(encoder: nn.Module, name: str, weights: str, sha256: str | None = None) -> None:
    """Puts pretrained weights into an encoder, in place.

    Raises ConfigError where the file is not that of the digest, cannot be read, or does not fit every parameter and
    running statistic of the encoder; where it holds more stages than the encoder has, as one of a deeper sister; and
    where a value is not finite.
    """
    path = weights_file(name, weights)
    if sha256 is not None and file_digest(path) != sha256:
        raise ConfigError(f"{path}: is not the file of weights_sha256 {sha256[:12]}…; give that file, or drop the key")
    found, whole = _plainly_named(path), _whole(name)
    wanted = {_plain(key): tensor for key, tensor in encoder.state_dict().items() if "num_batches" not in key}
    fitted = {
        key: fit_channels(found[key], tensor.shape, whole.get(key)) for key, tensor in wanted.items() if key in found
    }
    unfit = [key for key, tensor in wanted.items() if key not in fitted or fitted[key].shape != tensor.shape]
    if unfit:
        raise ConfigError(
            f"{path}: fits {len(wanted) - len(unfit)} of the {len(wanted)} tensors of encoder {name!r}, not "
            f"{_listed(unfit, wanted, found)}; give weights of this very encoder"
        )
    outside = tuple(_plain(prefix) for prefix in _OUTSIDE)
    strange = [key for key in found.keys() - wanted.keys() - whole.keys() if not key.startswith(outside)]
    if strange:
        raise ConfigError(
            f"{path}: holds {len(strange)} tensors that encoder {name!r} does not have, such as {sorted(strange)[0]}; "
            "give weights of this very encoder"
        )
    if broken := [key for key, tensor in wanted.items() if not fitted[key].to(tensor.dtype).isfinite().all()]:
        raise ConfigError(f"{path}: holds values that are not finite in {broken[0]}; give a file that is whole")
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(fitted[key])


def fit_channels(weight: torch.Tensor, shape: torch.Size, rgb_shape: torch.Size | None) -> torch.Tensor:
    """A kernel `(O, 3, ...)` that reads an RGB image, for an encoder that has it as `shape`, `(O, C, ...)`.

    One channel takes the sum over RGB, C channels take R, G, B in turns, times 3 / C. A tensor that has one shape for
    images of any channels stays as it is.
    """
    if weight.shape != rgb_shape or shape == rgb_shape:
        return weight
    channels = shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, [index % RGB for index in range(channels)]] * (RGB / channels)


def weights_file(encoder: str, weights: str) -> Path:
    """The file that `weights` names: a local one as the path is given, or one of the hub, fetched where it is not yet.

    Raises ConfigError where there is none, and where the hub cannot be reached.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.suffix.lower() in _ENDINGS or len(path.parts) > 1:
        raise ConfigError(f"weights {weights!r}: no such file; give the path of one, or a tag such as 'imagenet'")
    return _fetched(encoder, weights)


def _fetched(encoder: str, tag: str) -> Path:
    """The safetensors file that the hub keeps for an encoder; Hugging Face's client caches it."""
    from huggingface_hub import hf_hub_download

    repository, revision = hub_place(encoder, tag)
    try:
        with _quiet_client():
            return Path(hf_hub_download(repository, "model.safetensors", revision=revision))
    except (OSError, ValueError) as error:  # what the client raises, of the connection too, are OSErrors
        cause: BaseException = error
        while cause.__cause__ is not None:  # the client wraps what went wrong in advice
            cause = cause.__cause__
        raise ConfigError(
            f"weights {tag!r}: {repository} cannot be fetched ({type(cause).__name__}: {first_line(cause)}); without "
            "a connection, give the path of a local file"
        ) from error


@contextmanager
def _quiet_client() -> Iterator[None]:
    """The hub's client without its warning before each of its retries; the error says it all."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def hub_place(encoder: str, tag: str) -> tuple[str, str | None]:
    """Repository and revision of an encoder's weights. Raises ConfigError for a tag that it has none of."""
    import timm

    check_encoder(encoder)
    if encoder.startswith(TIMM):
        model = encoder.removeprefix(TIMM).partition(".")[0]
        tags = [one.partition(".")[2] for one in timm.list_models(f"{model}.*", pretrained=True)]
        plain = encoder.removeprefix(TIMM) if tag == "imagenet" else f"{model}.{tag}"
        config = timm.get_pretrained_cfg(plain, allow_unregistered=True) if tag in ("imagenet", *tags) else None
        if config is not None and config.hf_hub_id:
            return config.hf_hub_id, None
    else:
        settings = library().encoders.encoders[encoder]["pretrained_settings"]
        tags = list(settings)
        if tag in settings:
            return settings[tag]["repo_id"], settings[tag]["revision"]
    has = f"the tags {', '.join(tags)} alone" if tags else "no tags"
    raise ConfigError(f"weights {tag!r}: no such file, and encoder {encoder!r} has {has}")


def _whole(name: str) -> dict[str, torch.Size]:
    """Shapes of all tensors that RGB files of an encoder may hold, also of stages that a shallower one leaves out."""
    import timm

    # Without memory for the tensors; a Mix Transformer asks one for its numbers as it is built, so that it needs them.
    place = torch.device("cpu" if is_mix_transformer(name) else "meta")
    with torch.random.fork_rng(devices=[]), place:  # building draws weights that nobody takes
        model = timm.create_model(name.removeprefix(TIMM)) if name.startswith(TIMM) else make_encoder(name, RGB)
    return {_plain(key): tensor.shape for key, tensor in model.state_dict().items()}


def _plainly_named(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by their plain names. Raises ConfigError where one would stand for two."""
    original: dict[str, str] = {}
    tensors = read_tensors(path)
    for key in tensors:
        other = original.setdefault(_plain(key), key)
        if other != key:
            raise ConfigError(f"{path}: {other} and {key} would be the same tensor of the encoder; drop one of the two")
    return {plain: tensors[key] for plain, key in original.items()}


def _plain(key: str) -> str:
    """A tensor's name without what wraps the encoder; timm writes stages_0 where its own files have stages.0."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                key, stripped = key.removeprefix(prefix), True
    return _OLD_DENSENET.sub(r"\1\2", key.replace("_", "."))


def _listed(unfit: list[str], wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str:
    """The first few that do not fit, each with the reason."""
    shown = [
        f"{key} ({list(found[key].shape)} for {list(wanted[key].shape)})" if key in found else f"{key} (missing)"
        for key in unfit[:_SHOWN]
    ]
    return ", ".join(shown) + (f" and {len(unfit) - _SHOWN} more" if len(unfit) > _SHOWN else "")
