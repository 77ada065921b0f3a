"""Methods whose losses are minimised in turns, and methods whose parts learn at rates of their own."""

from __future__ import annotations

import pytest
import torch

import fewseg.engine.training.parallel as parallel
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.weights import start_weights
from fewseg.engine.training.snapshot import BEST
from fewseg.model.contract import Network
from fewseg.util.checkpoint import load_checkpoint
from fewseg.util.errors import UserError
from train import train

CPU = torch.device("cpu")


def test_both_turns_train(configure, base_weight, tmp_path):
    config = configure("plnet", epochs=1, **{"Method.options.min_positions": 1})
    train(config, CPU)
    state, meta = load_checkpoint(tmp_path / "run" / BEST)
    assert meta["arch"] == "plnet"
    start = base_weight.backbone.state_dict()
    filters = [name for name, value in start.items() if value.ndim > 1 and not name.startswith("layer4")]
    assert filters
    for name in filters:
        learner, segmentor = state[f"meta.learner.backbone.{name}"], state[f"backbone.{name}"]
        assert not torch.equal(start[name], learner)
        assert not torch.equal(start[name], segmentor)
        assert not torch.equal(learner, segmentor)


def test_learner_starts_where_the_backbone_does(configure, base_weight):
    config = configure("plnet")
    network = build_network(config, fold_of(config).classes)
    start_weights(network, config, fold_of(config).classes)
    own = network.meta.learner.backbone.state_dict()
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, base_weight.backbone.state_dict()[name]), name
        assert torch.equal(own[name], value), name


def test_several_processes_are_refused(monkeypatch):
    class InTurns(Network):
        alternating = (("one",), ("other",))

    network = InTurns()
    network.weight = torch.nn.Parameter(torch.zeros(1))
    monkeypatch.setattr(parallel.distributed, "world_size", lambda: 2)
    with pytest.raises(UserError, match="minimises its losses in alternation, which is for a single process"):
        parallel.Wrapped(network)


def test_backbone_learns_with_the_method(configure, base_weight, tmp_path):
    train(configure("sgone", epochs=1), CPU)
    state, _ = load_checkpoint(tmp_path / "run" / BEST)
    start = base_weight.backbone.state_dict()["layer1.0.conv1.weight"]
    assert not torch.equal(state["backbone.layer1.0.conv1.weight"], start)
    assert all(value.isfinite().all() for value in state.values())
