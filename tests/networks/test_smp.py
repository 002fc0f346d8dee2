"""Decoders and encoders of segmentation-models-pytorch: the library's own output, pretrained files, honest refusals."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.extras import ZOO
from medseg.networks import DeepLabV3PlusConfig, HRNetConfig, NetworkConfig, SMPConfig
from medseg.networks.lenient_norm import forgive_single_values

needs_zoo = pytest.mark.skipif(not ZOO.is_installed(), reason="needs the extra 'zoo'")
CLASSES = {
    "unet": "Unet", "unet_plus_plus": "UnetPlusPlus", "manet": "MAnet", "linknet": "Linknet", "fpn": "FPN",
    "pspnet": "PSPNet", "deeplabv3": "DeepLabV3", "deeplabv3plus": "DeepLabV3Plus", "pan": "PAN",
    "upernet": "UPerNet", "segformer": "Segformer",
}  # fmt: skip


def encoder(name: str = "resnet18", in_channels: int = 3, depth: int = 5) -> nn.Module:
    from medseg.networks.encoders.smp_encoders import make_encoder

    made: nn.Module = make_encoder(name, in_channels, depth=depth)
    return made


def saved(path: Path, tensors: dict[str, Any]) -> str:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return str(path)


@needs_zoo
@pytest.mark.parametrize("decoder", CLASSES)
def test_the_network_is_the_librarys_own(decoder: str) -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    extra = {"encoder_depth": 5, "upsampling": 32} if decoder == "pspnet" else {}
    theirs = getattr(smp, CLASSES[decoder])(
        "mobilenet_v2", encoder_weights=None, in_channels=2, classes=3, **extra
    ).eval()
    config = SMPConfig(decoder=decoder, encoder="mobilenet_v2")
    torch.manual_seed(0)
    ours = config.build(2, 3).eval()
    image = torch.randn(1, 2, *(step * -(-64 // step) for step in config.divisor()))
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(size % theirs.encoder.output_stride == 0 for size in config.divisor())


@needs_zoo
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_divisor_is_what_the_library_asks_for(depth: int) -> None:
    import segmentation_models_pytorch as smp

    config = SMPConfig(decoder="linknet", encoder="resnet18", depth=depth)
    theirs = smp.Linknet("resnet18", encoder_weights=None, encoder_depth=depth)
    assert config.divisor() == (theirs.encoder.output_stride,) * 2
    assert config.build(1, 2)(torch.randn(2, 1, *config.divisor())).shape[2:] == config.divisor()


@needs_zoo
@pytest.mark.parametrize(
    ("name", "depth"),
    [("resnet18", 3), ("mobilenet_v2", 3), ("efficientnet-b0", 3), ("tu-lcnet_050", 3), ("tu-convnext_atto", 4)],
)
def test_every_parameter_of_a_cut_encoder_gets_a_gradient(name: str, depth: int) -> None:
    """mobilenet_v2 runs its deepest stages for nobody; resnet18 only carries them along."""
    network = SMPConfig(decoder="unet", encoder=name, depth=depth).build(1, 2)
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


def trained_at_the_smallest_size(config: NetworkConfig) -> None:
    """A step in bf16 on a batch of one; logits lie on the image's grid, and all is finite."""
    torch.manual_seed(0)
    size = (2 * config.divisor()[0], config.divisor()[1])
    config.check_size(size, "patch.size")
    network = config.build(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.randn(1, 1, *size))
    logits.float().square().mean().backward()
    assert logits.shape == (1, 2, *size)
    assert logits.isfinite().all()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@needs_zoo
@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize("decoder", CLASSES)
def test_every_decoder_at_every_depth_trains_at_the_smallest_size(decoder: str, depth: int) -> None:
    trained_at_the_smallest_size(SMPConfig(decoder=decoder, encoder="tu-lcnet_050", depth=depth))


@needs_zoo
@pytest.mark.parametrize("decoder", ["unet", "pspnet", "upernet", "deeplabv3plus", "segformer"])
def test_a_mix_transformer_cut_short_needs_no_smaller_step_than_whole(decoder: str) -> None:
    """Its first stage merges 8 x 8 tokens of 4 x 4 pixels, at any depth."""
    config = SMPConfig(decoder=decoder, encoder="mit_b0", depth=3)
    assert config.divisor() == (32, 32)
    trained_at_the_smallest_size(config)


FAMILIES = (
    "resnet18", "mit_b0", "efficientnet-b0", "densenet121", "mobileone_s0", "tu-resnetv2_18", "tu-test_nfnet",
)  # fmt: skip
UNDILATED = ("densenet121",)  # of these, what cannot be dilated


@needs_zoo
@pytest.mark.parametrize("decoder", ["fpn", "deeplabv3plus"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_encoders_trains_at_the_smallest_size(name: str, decoder: str) -> None:
    if decoder == "deeplabv3plus" and name in UNDILATED:
        with pytest.raises(ConfigError, match="do not support dilated mode"):
            SMPConfig(decoder=decoder, encoder=name).build(1, 2)
    else:
        trained_at_the_smallest_size(SMPConfig(decoder=decoder, encoder=name))


@needs_zoo
@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["unet", "pspnet", "manet", "upernet", "segformer"])
@pytest.mark.parametrize("name", [*FAMILIES, "mobilenet_v2", "tu-lcnet_050", "tu-resnetv2_50x1_bit", "vgg11"])
def test_more_decoders_train_on_every_family_of_encoders(name: str, decoder: str) -> None:
    trained_at_the_smallest_size(SMPConfig(decoder=decoder, encoder=name))


@needs_zoo
def test_a_network_whose_logits_lie_elsewhere_is_refused() -> None:
    from medseg.networks.encoders.smp_encoders import EncoderDecoder, finished

    halved = EncoderDecoder(nn.Conv2d(1, 2, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(2, 2, 1), 0.0)
    with pytest.raises(ConfigError, match=r"its logits lie on a grid of \[32, 32\] where the image has \[64, 64\]"):
        finished(halved, 1, (8, 8), "half of a network")


@needs_zoo
def test_a_network_that_fails_at_the_smallest_size_is_refused() -> None:
    from medseg.networks.encoders.smp_encoders import EncoderDecoder, finished

    greedy = EncoderDecoder(nn.Conv2d(1, 2, 17), nn.ReplicationPad2d(8), nn.Conv2d(2, 2, 1), 0.0)
    finished(greedy, 1, (32, 32), "a network")
    with pytest.raises(ConfigError, match="a network, for patches of any size, cannot be built"):
        finished(greedy, 1, (8, 8), "a network")


def test_memory_that_runs_out_is_no_fault_of_the_encoder() -> None:
    from medseg.networks.encoders.smp_encoders import EncoderDecoder, finished

    class Full(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("no memory left")

    with pytest.raises(torch.OutOfMemoryError):
        finished(EncoderDecoder(Full(), nn.Identity(), nn.Identity(), 0.0), 1, (8, 8), "a network")


def test_a_lenient_norm_differs_only_where_a_channel_has_one_value() -> None:
    torch.manual_seed(0)
    plain, lenient = nn.BatchNorm2d(3), forgive_single_values(nn.Sequential(nn.BatchNorm2d(3)))[0]
    for _ in range(3):
        image = torch.randn(1, 3, 2, 1)
        assert torch.equal(lenient(image), plain(image))
    before = {key: value.clone() for key, value in lenient.state_dict().items()}
    single = torch.randn(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        plain(single)
    torch.testing.assert_close(lenient(single), plain.eval()(single))
    assert all(torch.equal(value, before[key]) for key, value in lenient.state_dict().items())
    assert torch.equal(lenient.eval()(single), plain(single))


@needs_zoo
def test_hrnet_joins_the_four_grids_of_the_paper() -> None:
    """W18: stage 4 runs 18, 36, 72 and 144 channels, 270 in all, not those that timm widens for classification."""
    config = HRNetConfig(encoder="tu-hrnet_w18")
    network = config.build(1, 2)
    assert network.get_submodule("encoder").out_channels[-4:] == [18, 36, 72, 144]  # type: ignore[index]
    head = sum(parameter.numel() for parameter in network.get_submodule("decoder").parameters())
    assert head == 270 * 270 + 2 * 270
    final = network.get_submodule("segmentation_head.0")
    assert isinstance(final, nn.Conv2d)
    assert (final.in_channels, final.kernel_size) == (270, (1, 1))


@needs_zoo
def test_hrnet_is_timms_features_and_the_head_by_hand() -> None:
    import timm
    from torch.nn.functional import conv2d, interpolate

    torch.manual_seed(0)
    network = HRNetConfig(encoder="tu-hrnet_w18_small").build(2, 3).eval()
    theirs = timm.create_model("hrnet_w18_small", features_only=True, feature_location="", in_chans=2).eval()
    loaded = theirs.load_state_dict(network.get_submodule("encoder.model").state_dict(), strict=False)
    assert not loaded.unexpected_keys
    mix, norm, _ = network.get_submodule("decoder.mix").children()
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    nn.init.normal_(norm.running_mean, std=0.1)
    image = torch.randn(1, 2, 96, 64)
    with torch.no_grad():
        grids = theirs(image)[-4:]
        assert [grid.shape[2:] for grid in grids] == [(24, 16), (12, 8), (6, 4), (3, 2)]
        joined = torch.cat([interpolate(grid, size=(24, 16), mode="bilinear") for grid in grids], dim=1)
        mixed = norm(conv2d(joined, mix.get_parameter("weight"))).relu()
        final = network.get_submodule("segmentation_head.0")
        scores = conv2d(mixed, final.get_parameter("weight"), final.get_parameter("bias"))
        assert torch.equal(network(image), interpolate(scores, size=(96, 64), mode="bilinear"))


@needs_zoo
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["resnet18", "tu-lcnet_050"])
def test_a_local_file_is_loaded_whole(tmp_path: Path, name: str, ending: str) -> None:
    torch.manual_seed(1)
    source = encoder(name)
    tensors = {f"module.{key.removeprefix('model.')}": value for key, value in source.state_dict().items()}
    tensors |= {"module.fc.weight": torch.ones(1000, 512), "module.fc.bias": torch.ones(1000)}
    path = saved(tmp_path / f"weights{ending}", tensors if ending != ".pth" else {"epoch": 3, "state_dict": tensors})
    config = SMPConfig(decoder="fpn", encoder=name, weights=path)
    network = config.build(3, 2)
    config.load_pretrained(network)
    loaded = network.get_submodule("encoder").state_dict()
    wanted = source.state_dict()
    assert all(torch.equal(loaded[key], wanted[key]) for key in loaded if "num_batches" not in key)


@needs_zoo
def test_a_shallower_encoder_takes_its_stages_from_a_whole_file(tmp_path: Path) -> None:
    source = encoder("resnet18")
    path = saved(tmp_path / "weights.pth", dict(source.state_dict()))
    config = SMPConfig(decoder="fpn", encoder="resnet18", depth=3, weights=path)
    network = config.build(3, 2)
    config.load_pretrained(network)
    loaded = network.get_submodule("encoder").state_dict()
    assert not any(key.startswith("layer4") for key in loaded)
    assert torch.equal(loaded["layer2.1.conv2.weight"], source.state_dict()["layer2.1.conv2.weight"])


@needs_zoo
def test_timms_own_names_fit_although_its_feature_extractor_flattens_them(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("convnext_atto", num_classes=7)
    path = saved(tmp_path / "weights.safetensors", dict(source.state_dict()))
    config = SMPConfig(decoder="fpn", encoder="tu-convnext_atto", weights=path)
    network = config.build(3, 2)
    config.load_pretrained(network)
    loaded = network.get_submodule("encoder").state_dict()
    assert torch.equal(loaded["model.stem_0.weight"], source.state_dict()["stem.0.weight"])


@needs_zoo
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_weights_for_rgb_fit_other_channels_as_stated(tmp_path: Path, channels: int) -> None:
    from segmentation_models_pytorch.encoders._utils import patch_first_conv

    source = encoder("resnet18")
    path = saved(tmp_path / "weights.pth", dict(source.state_dict()))
    config = SMPConfig(decoder="fpn", encoder="resnet18", weights=path)
    network = config.build(channels, 2)
    config.load_pretrained(network)
    kernel, rgb = network.get_parameter("encoder.conv1.weight"), source.get_parameter("conv1.weight").detach()
    if channels == 1:
        expected = rgb[:, 0] + rgb[:, 1] + rgb[:, 2]
        torch.testing.assert_close(kernel[:, 0], expected)
    else:
        for channel in range(channels):
            torch.testing.assert_close(kernel[:, channel], rgb[:, channel % 3] * 3 / channels)
    patch_first_conv(source, channels)  # the library's own rule
    torch.testing.assert_close(kernel, source.get_parameter("conv1.weight"))


@needs_zoo
def test_a_grey_image_gives_what_its_rgb_copy_gave(tmp_path: Path) -> None:
    source = encoder("resnet18").eval()
    path = saved(tmp_path / "weights.pth", dict(source.state_dict()))
    config = SMPConfig(decoder="fpn", encoder="resnet18", weights=path)
    network = config.build(1, 2).eval()
    config.load_pretrained(network)
    grey = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(network.get_submodule("encoder")(grey)[-1], source(grey.expand(-1, 3, -1, -1))[-1])


@needs_zoo
def test_a_file_that_does_not_fit_is_refused_with_the_names(tmp_path: Path) -> None:
    source = dict(encoder("resnet18").state_dict())
    partial = {key: value for key, value in source.items() if not key.startswith("layer4.1")}
    misshapen = {**source, "layer1.0.conv1.weight": torch.zeros(64, 32, 3, 3)}
    deeper = dict(encoder("resnet34").state_dict())
    for number, (tensors, says) in enumerate(
        (
            (partial, r"fits 90 of the 100 tensors of encoder 'resnet18', not layer4\.1\.conv1\.weight \(missing\)"),
            (
                misshapen,
                r"not layer1\.0\.conv1\.weight \(\[64, 32, 3, 3\] for \[64, 64, 3, 3\]\); give",
            ),
            (deeper, r"holds \d+ tensors that encoder 'resnet18' does not have, such as layer1\.2"),
            ({"conv1.weight": source["conv1.weight"]}, "and 96 more"),
        )
    ):
        path = saved(tmp_path / f"{number}.pth", tensors)
        config = SMPConfig(decoder="fpn", encoder="resnet18", weights=path)
        network = config.build(3, 2)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(ConfigError, match=says):
            config.load_pretrained(network)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@needs_zoo
def test_files_that_hold_no_tensors_are_refused(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Path("anything"), protocol=2))
    saved(tmp_path / "numbers.pth", {"epoch": 3})
    network = SMPConfig(decoder="fpn", encoder="resnet18").build(3, 2)
    for name in ("text.pth", "text.safetensors", "code.pth", "numbers.pth"):
        config = SMPConfig(decoder="fpn", encoder="resnet18", weights=str(tmp_path / name))
        with pytest.raises(ConfigError, match=re.escape(name)) as caught:
            config.load_pretrained(network)
        assert "give a safetensors file or a state dict of torch" in str(caught.value)
        assert "\n" not in str(caught.value)


@needs_zoo
def test_a_run_writes_down_the_digest_and_another_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", dict(encoder("resnet18").state_dict()))
    config = SMPConfig(encoder="resnet18", weights=path).pinned()
    assert config.weights_sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert config.pinned() == config
    assert validate(SMPConfig, config.model_dump(mode="json"), "card") == config
    network = config.build(1, 2)
    config.load_pretrained(network)
    saved(tmp_path / "weights.pth", dict(encoder("resnet18").state_dict()))
    with pytest.raises(ConfigError, match="is not the file of weights_sha256"):
        config.load_pretrained(network)


@needs_zoo
def test_building_needs_no_file() -> None:
    config = SMPConfig(encoder="resnet18", weights="/nowhere/weights.pth")
    with torch.no_grad():
        network = config.build(1, 2)
    with pytest.raises(ConfigError, match=r"'/nowhere/weights.pth': no such file; give the path of one, or a tag"):
        config.load_pretrained(network)


@needs_zoo
@pytest.mark.parametrize("name", ["resnet18", "tu-resnet18"])
def test_without_a_connection_the_hub_is_a_one_line_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="without a connection, give the path of a local file") as caught:
        SMPConfig(encoder=name, weights="imagenet").pinned()
    assert "(OfflineModeIsEnabled: Cannot reach https://" in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_zoo
def test_a_hub_that_refuses_is_named_without_the_clients_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing listens at the discard port; of its retries, between which it would wait, the client says nothing."""
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    before = logging.get_verbosity()
    with pytest.raises(ConfigError, match=r"cannot be fetched \(Connect.*refused") as caught:
        SMPConfig(encoder="resnet18", weights="imagenet").pinned()
    assert "\n" not in str(caught.value)
    assert caplog.text == ""
    assert logging.get_verbosity() == before


@needs_zoo
@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("resnet18", "has the tags imagenet, ssl, swsl alone"),
        ("tu-resnet18", "a1_in1k, "),
        ("tu-test_vit", "has the tags r160_in1k alone"),
        ("tu-coatnet_0_224", "has no tags"),
    ],
)
def test_a_tag_that_an_encoder_lacks_is_refused_with_those_it_has(name: str, has: str) -> None:
    with pytest.raises(ConfigError, match="'imagnet': no such file, and encoder") as caught:
        SMPConfig(encoder=name, weights="imagnet").pinned()
    assert has in str(caught.value)


@needs_zoo
def test_the_hub_keeps_safetensors_where_they_are_looked_for() -> None:
    from medseg.networks.encoders.encoder_weights import hub_place

    assert hub_place("resnet18", "imagenet")[0] == "smp-hub/resnet18.imagenet"
    assert hub_place("tu-resnet18", "imagenet") == ("timm/resnet18.a1_in1k", None)
    assert hub_place("tu-resnet18", "a2_in1k") == ("timm/resnet18.a2_in1k", None)
    assert hub_place("tu-resnet18.a3_in1k", "imagenet") == ("timm/resnet18.a3_in1k", None)


@needs_zoo
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (SMPConfig(encoder="resnet81"), "no encoder is called 'resnet81'; did you mean 'resnet18'?"),
        (SMPConfig(encoder="tu-resnet8"), "did you mean 'tu-resnet1"),
        (SMPConfig(encoder="timm-mobilenetv3_small_100"), "no encoder is called 'timm-mobilenetv3_small_100'"),
        (HRNetConfig(encoder="tu-hrnet_w19"), "did you mean 'tu-hrnet_w18'?"),
        (DeepLabV3PlusConfig(spatial_dims=2, encoder="vgg11"), "DeepLabV3Plus with encoder 'vgg11' cannot be built"),
        (SMPConfig(encoder="tu-swin_tiny_patch4_window7_224"), "cannot be built"),
    ],
)
def test_encoders_that_are_unknown_or_do_not_fit_are_refused(config: NetworkConfig, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(1, 2)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", ["ImportError('no torchvision')", "RuntimeError('operator torchvision::nms')"])
def test_a_library_that_cannot_be_imported_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str
) -> None:
    import sys

    from medseg.networks.encoders.smp_encoders import library

    (tmp_path / "segmentation_models_pytorch.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "segmentation_models_pytorch", raising=False)
    with pytest.raises(ConfigError, match="cannot be imported here") as caught:
        library()
    assert "torchvision" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "content", "says"),
    [
        (SMPConfig, {"decoder": "unet++"}, "did you mean 'unet"),
        (SMPConfig, {"decoder": "linknet", "encoder": "mit_b0"}, "reads features at stride 2"),
        (SMPConfig, {"decoder": "fpn", "encoder": "mit_b0", "depth": 4}, "fewer at depth 4; set depth: 5"),
        (SMPConfig, {"depth": 2}, "depth"),
        (SMPConfig, {"spatial_dims": 3}, "spatial_dims"),
        (SMPConfig, {"weights_sha256": "0" * 64}, "weights_sha256 is of a file that weights must name"),
        (SMPConfig, {"weights": "a.pth", "weights_sha256": "abc"}, "weights_sha256"),
        (HRNetConfig, {"encoder": "resnet18"}, "is no HRNet"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(settings: type[Any], content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(settings, content, "experiment.yaml")
    assert says in str(caught.value)
