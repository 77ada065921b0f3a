"""Nothing that runs for every episode breaks the graph of a compiled network."""

from __future__ import annotations

import pytest
import torch

from fewseg.model import create_model, waiting
from fewseg.model.encoding import group_encoding
from fewseg.model.fewshot import FewShotModel
from tests.model.tester import random_episode

OPTIONS: dict[str, dict[str, object]] = {
    "bam": {"channels": 8},
    "pfenet": {"channels": 8},
    "msanet": {"channels": 8, "similarity_channels": 8},
    "hdmnet": {"channels": 8, "matching_channels": 8},
}


def build(method: str, shot: int) -> FewShotModel:
    torch._dynamo.reset()
    tiny = {"backbone": "resnet18", "backbone_options": {"width": 8}, "image_size": 33}
    return create_model(method, shot=shot, **tiny, **OPTIONS[method])


def assert_whole(explained: object) -> None:
    assert explained.graph_count == 1 and explained.op_count > 50
    assert explained.graph_break_count == 0, explained.break_reasons


@pytest.mark.parametrize("method", OPTIONS)
def test_decoding_is_one_graph(method: str) -> None:
    model, episode = build(method, 1).eval(), random_episode(33)
    with torch.no_grad():
        query, support = model._encode_both(episode)
        support = group_encoding(support, 2, 1, 1)
        assert_whole(torch._dynamo.explain(model.decode)(query, support, episode.size))


@pytest.mark.slow
@pytest.mark.parametrize("method", OPTIONS)
def test_a_training_forward_is_one_graph_on_a_gpu(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, the sizes of objects are read while the supports are encoded."""
    monkeypatch.setattr(waiting, "would_wait", lambda tensor: True)
    assert_whole(torch._dynamo.explain(build(method, 2).train())(random_episode(33, shots=2)))
