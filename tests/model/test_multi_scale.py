"""Testing at several scales of the query, with every method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from fewseg.model import create_model, list_models
from fewseg.model.create import METHODS
from fewseg.model.multi_scale import MultiScale
from fewseg.model.records import SameSize
from tests.model.tester import decode_encoded, random_episode

OPTIONS = {"mianet": {"embeddings": torch.ones(21, 30)}, "hsnet": {"channels": 32}}


def build(method: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    known = METHODS[method].Options.__dataclass_fields__
    small = {"channels": 16} if "channels" in known else {}
    chosen = {
        "image_size": 65,
        "backbone_options": {"width": 8},
        **small,
        **OPTIONS.get(method, {}),
        **options,
    }
    return create_model(method, backbone="resnet18", **chosen).eval()


@pytest.mark.parametrize("method", list_models())
def test_every_method_is_tested_at_several_scales_or_refused(method: str) -> None:
    model = build(method)
    episode = random_episode(65)
    if model.meta.inputs.same_size is SameSize.ALL:
        with pytest.raises(ValueError, match="needs queries as large as the supports"):
            MultiScale(model, [0.7, 1, 1.3])
        return
    with torch.no_grad():
        whole = MultiScale(model, [0.7, 1, 1.3]).eval()(episode).logits
        assert whole.shape == (2, 2, 65, 65) and whole.isfinite().all()
        if not model.batch_dependent:
            single = decode_encoded(MultiScale(model, [0.7, 1, 1.3]).eval(), episode)
            torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-4)


def test_probabilities_are_averaged_over_the_scales_and_supports_stay() -> None:
    model = build("bam", base="pspnet")
    episode = random_episode(65)
    wide = replace(
        episode, query=interpolate(episode.query, (78, 78), mode="bilinear"), query_mask=None, base_label=None
    )
    with torch.no_grad():
        own = model(episode)
        query, size = model.encode_query(wide.query), tuple(episode.query.shape[-2:])
        support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        other = model.decode(query, {name: t[:, None, None] for name, t in support.items()}, size)
        both = MultiScale(model, [1.2, 1]).eval()(episode)
    mean = (own.logits.softmax(1) + other.logits.softmax(1)) / 2
    torch.testing.assert_close(both.logits.softmax(1), mean, atol=1e-5, rtol=1e-4)
    assert torch.equal(both.parts["meta"], own.parts["meta"])


def test_one_scale_is_the_model_itself() -> None:
    model, episode = build("canet"), random_episode(65)
    with torch.no_grad():
        probability = MultiScale(model, [1]).eval()(episode).logits.softmax(1)
        torch.testing.assert_close(probability, model(episode).logits.softmax(1))
