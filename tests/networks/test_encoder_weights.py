"""Pretrained files as they are found in the world: of every family, wrapped, damaged, or of something else."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medseg.errors import ConfigError, TrainingError
from medseg.extras import ZOO
from medseg.training.checkpoint import Checkpoints

needs_zoo = pytest.mark.skipif(not ZOO.is_installed(), reason="needs the extra 'zoo'")
slow = pytest.mark.slow
# Family -> what its genuine files hold beside the encoder, which the library's own loader drops.
HEADS: dict[str, tuple[str, ...]] = {
    "resnet18": ("fc.weight", "fc.bias"),
    "mobilenet_v2": ("classifier.1.weight", "classifier.1.bias"),
    "efficientnet-b0": ("_fc.weight", "_fc.bias"),
    "densenet121": ("classifier.weight", "classifier.bias"),
    "mit_b0": ("head.weight", "head.bias"),
    "mobileone_s0": ("linear.weight", "linear.bias"),
    "vgg11_bn": ("classifier.0.weight", "classifier.6.bias"),
    "timm-tf_efficientnet_lite0": ("classifier.weight", "classifier.bias"),
    "timm-skresnet18": ("fc.weight", "fc.bias"),
    "se_resnet50": ("last_linear.weight", "last_linear.bias"),
    "dpn68": ("last_linear.weight", "last_linear.bias"),
    "xception": ("fc.weight", "fc.bias"),
    "inceptionv4": ("last_linear.weight", "last_linear.bias"),
    "inceptionresnetv2": ("last_linear.weight", "last_linear.bias"),
}
LARGE = ("vgg11_bn", "se_resnet50", "dpn68", "xception", "inceptionv4", "inceptionresnetv2")


def encoder(name: str, in_channels: int = 3) -> nn.Module:
    from medseg.networks.encoders.smp_encoders import make_encoder

    made: nn.Module = make_encoder(name, in_channels)
    return made


def load(network: nn.Module, name: str, tensors: dict[str, Any], path: Path) -> None:
    from medseg.networks.encoders.encoder_weights import load_encoder

    torch.save(tensors, path)
    load_encoder(network, name, str(path))


def genuine(name: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict as the family's published files have it."""
    named = dict(state)
    if name.startswith("densenet"):  # from before norms counted their batches, and before dots left the names of layers
        within = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
        named = {within.sub(r"\1.\2", key): value for key, value in state.items() if "num_batches" not in key}
        assert "features.denseblock1.denselayer1.norm.1.weight" in named
        assert "features.norm0.weight" in named
    return {**named, **{key: torch.zeros(2) for key in HEADS[name]}}


@needs_zoo
@pytest.mark.parametrize("name", [pytest.param(one, marks=[slow] if one in LARGE else []) for one in HEADS])
def test_a_file_that_the_library_loads_is_loaded(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    source = encoder(name)
    tensors = genuine(name, source.state_dict())
    theirs, ours = encoder(name), encoder(name)
    theirs.load_state_dict(dict(tensors))  # strict: there are such files
    load(ours, name, tensors, tmp_path / "weights.pth")
    loaded = ours.state_dict()
    for key, value in theirs.state_dict().items():
        assert "num_batches" in key or torch.equal(loaded[key], value), key


@needs_zoo
@pytest.mark.parametrize("name", ["resnet18", "mobileone_s0", "tu-lcnet_050"])
def test_only_kernels_that_read_the_image_are_fitted_to_its_channels(tmp_path: Path, name: str) -> None:
    source, grey = encoder(name), encoder(name, 1)
    load(grey, name, dict(source.state_dict()), tmp_path / "weights.pth")
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = source.eval()(image.expand(-1, 3, -1, -1))[1]
        torch.testing.assert_close(grey.eval()(image)[1], expected, rtol=1e-3, atol=1e-4)


@needs_zoo
@pytest.mark.parametrize("channels", [1, 3])
def test_a_kernel_of_three_channels_elsewhere_does_not_fit(tmp_path: Path, channels: int) -> None:
    """A depthwise kernel is (32, 1, 3, 3) for any image; the sum over three channels would be another one."""
    tensors = dict(encoder("mobilenet_v2").state_dict())
    key = "features.1.conv.0.0.weight"
    assert tensors[key].shape == (32, 1, 3, 3)
    tensors[key] = tensors[key].expand(-1, 3, -1, -1).contiguous()
    with pytest.raises(ConfigError, match=r"not features\.1\.conv\.0\.0\.weight \(\[32, 3, 3, 3\] for \[32, 1, 3, 3"):
        load(encoder("mobilenet_v2", channels), "mobilenet_v2", tensors, tmp_path / "weights.pth")


@needs_zoo
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    tensors = {key: tensor.clone() for key, tensor in encoder("resnet18").state_dict().items()}
    tensors["layer1.0.conv1.weight"][3, 2, 1, 0] = value
    network = encoder("resnet18")
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(ConfigError, match=r"not finite in layer1\.0\.conv1\.weight; give"):
        load(network, "resnet18", tensors, tmp_path / "weights.pth")
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@needs_zoo
@pytest.mark.parametrize("wrap", ["state_dict", "model", "model_state_dict", "network"])
def test_a_tensor_beside_the_state_dict_does_not_hide_it(tmp_path: Path, wrap: str) -> None:
    source, network = encoder("resnet18"), encoder("resnet18")
    content = {wrap: source.state_dict(), "epoch": torch.tensor(3), "best": 0.9}
    load(network, "resnet18", content, tmp_path / "weights.pth")
    assert torch.equal(network.get_parameter("conv1.weight"), source.get_parameter("conv1.weight"))


@needs_zoo
def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    """As in a file of a student and its teacher: which of the two is meant cannot be told."""
    tensors = dict(encoder("resnet18").state_dict())
    tensors["backbone.conv1.weight"] = torch.zeros_like(tensors["conv1.weight"])
    with pytest.raises(ConfigError, match=r"conv1\.weight and backbone\.conv1\.weight would be the same tensor"):
        load(encoder("resnet18"), "resnet18", tensors, tmp_path / "weights.pth")


@needs_zoo
@pytest.mark.parametrize("name", ["resnet18", "mit_b0", "tu-lcnet_050"])
def test_loading_draws_nothing_from_the_generator(tmp_path: Path, name: str) -> None:
    source, network = encoder(name), encoder(name)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(network, name, dict(source.state_dict()), tmp_path / "weights.pth")
    assert torch.equal(torch.rand(3), expected)


@needs_zoo
def test_every_tag_of_the_library_has_a_place_on_the_hub() -> None:
    from medseg.networks.encoders.encoder_weights import hub_place
    from medseg.networks.encoders.smp_encoders import library

    for name, entry in library().encoders.encoders.items():
        for tag in entry["pretrained_settings"]:
            assert hub_place(name, tag)[0].startswith("smp-hub/"), (name, tag)


def _file(form: str) -> bytes:
    """A small file of tensors and plain values; `zip` and `legacy` are torch's two formats."""
    tensors = {f"layer{number}.weight": torch.zeros(3, 4) for number in range(4)}
    if form == "safetensors":
        from safetensors.torch import save

        plain: bytes = save(tensors)
        return plain
    buffer = io.BytesIO()
    content = {"state_dict": tensors, "epoch": 3, "rates": [0.1, (2, 3)], "name": "encoder"}
    torch.save(content, buffer, _use_new_zipfile_serialization=form == "zip")
    return buffer.getvalue()


def _damaged(whole: bytes, chance: np.random.Generator) -> bytes:
    """Cut short, or with a few bytes changed, anywhere or where the names and shapes stand."""
    data = bytearray(whole)
    match int(chance.integers(3)):
        case 0:
            return whole[: int(chance.integers(len(whole)))]
        case 1:
            for place in chance.integers(len(data), size=int(chance.integers(1, 9))):
                data[int(place)] = int(chance.integers(256))
        case _:
            start = int(chance.integers(min(len(data), 400)))
            data[start : start + int(chance.integers(1, 21))] = chance.bytes(int(chance.integers(21)))
    return bytes(data)


@needs_zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_weights_are_refused_and_never_crash(tmp_path: Path, form: str) -> None:
    from medseg.networks.encoders.encoder_weights import read_tensors

    whole, chance = _file(form), np.random.default_rng(0)
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    said = []
    for _ in range(400):
        path.write_bytes(_damaged(whole, chance))
        try:
            read_tensors(path)
        except ConfigError as error:
            said.append(str(error))
    assert len(said) > 300  # a changed number in a tensor is no damage that can be seen
    assert all(str(path) in one and "\n" not in one for one in said)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_damaged_checkpoints_are_refused_and_never_crash(tmp_path: Path, form: str) -> None:
    whole, chance, refused = _file(form), np.random.default_rng(0), 0
    for _ in range(400):
        data = _damaged(whole, chance)
        path = tmp_path / f"last-00000001-{hashlib.sha256(data).hexdigest()[:16]}.pt"  # as if written so
        path.write_bytes(data)
        try:
            Checkpoints(tmp_path, "last", 1).newest()
        except TrainingError:
            refused += 1
        path.unlink()
    assert refused > 300
