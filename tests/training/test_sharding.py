"""Every network of the catalogue gives the same logits and gradients when its weights are shared out."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import distributed

from medseg.devices import World
from medseg.networks import NetworkConfig
from medseg.training import sharding
from medseg.training.sharding import gathered, share_out
from tests.networks.test_networks import admissible, every_network


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of this process alone, which holds all shares."""
    store = distributed.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")  # in-place changes of a view, of which none is
@every_network
def test_shared_weights_compute_the_same(config: NetworkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "_WORTH_SHARING", 1)  # each block of a list by itself
    torch.manual_seed(0)
    whole = config.sized(admissible(config)).build(2, 3)
    shared = copy.deepcopy(whole)
    share_out(shared, World(), torch.device("cpu"))
    images = torch.randn(2, 2, *admissible(config))
    for network in (whole, shared):
        torch.manual_seed(1)  # for dropout
        logits = network.train()(images)
        stages = [logits] if isinstance(logits, torch.Tensor) else logits
        torch.stack([stage.square().mean() for stage in stages]).sum().backward()
    found = {name: gathered(weights.grad) for name, weights in shared.named_parameters()}
    for name, weights in whole.named_parameters():
        assert (weights.grad is None) == (found[name] is None), name
        assert weights.grad is None or torch.allclose(weights.grad, found[name], atol=1e-5), name
