"""MSANet's own switches, and what every meta-learner must do."""

from dataclasses import replace

import pytest
import torch

from fewseg.model import create_adapter, create_model
from fewseg.model.create import create_backbone
from fewseg.model.encoding import group_encoding
from fewseg.model.layer.pooling import gather_positions
from fewseg.model.meta.msanet.msanet import Taps
from fewseg.model.meta.msanet.multi_similarity import (
    SimilarityMemory,
    confident_positions,
    mean_similarity,
    normalise,
)
from fewseg.model.records import SupportView
from tests.model.strategies import StrategiesTester, weights_of
from tests.model.tester import ShotWeightsTester, random_episode


class TestMSANet(ShotWeightsTester, StrategiesTester):
    method = "msanet"
    options = {"channels": 16, "similarity_channels": 8}

    @pytest.mark.parametrize(
        ("part", "entry", "weights"),
        [
            ("similarity", "multi_similarity", "similarity_fusion."),
            ("attention", "attention", "attention."),
        ],
    )
    def test_a_part_that_is_switched_off_has_no_weights(self, part: str, entry: str, weights: str) -> None:
        whole, without = self.build(), self.build(**{part: False})
        removed = weights_of(whole) - weights_of(without)
        assert removed and all(name.startswith(weights) for name in removed)
        episode = random_episode(65, shots=1)
        prediction = without(episode)
        assert entry not in prediction.parts and entry in whole(episode).parts
        sum(without.losses(prediction, episode).values()).backward()
        assert all(p.grad is not None for p in without.meta.parameters())
        assert create_adapter("eftnet", without, rounds=1)(episode).logits.isfinite().all()

    def test_each_part_changes_the_outcome(self) -> None:
        """The inputs of a part are zeroed in its place, which leaves the weights as they are."""
        episode, whole = random_episode(65), self.build().eval()
        with torch.no_grad():
            query = whole.encode_query(episode.query)
            support = whole.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
            guidance = whole.meta.match(query, group_encoding(support, 2, 1))
            logits = whole.meta.segment(query, guidance).logits
            for part in ("multi_similarity", "attention"):
                zeroed = {**guidance, part: torch.zeros_like(guidance[part])}
                assert not torch.allclose(whole.meta.segment(query, zeroed).logits, logits, atol=1e-6)

    def test_without_both_parts_it_is_bam_s_meta_learner(self) -> None:
        """BAM's last stage sees masked features of the supports, MSANet's does not."""
        ours = self.build(similarity=False, attention=False)
        torch.manual_seed(1)
        bam = create_model(
            "bam",
            **{"backbone": self.backbone, "backbone_options": self.backbone_options},
            **{"image_size": 65, "channels": 16},
        )
        bam.meta.inputs = replace(bam.meta.inputs, view=SupportView.PLAIN)
        ours.load_state_dict(bam.state_dict())
        assert ours.meta.inputs.query == ("middle", "high", "low")
        episode = random_episode(65)
        with torch.no_grad():
            torch.testing.assert_close(ours.eval()(episode).logits, bam.eval()(episode).logits)

    def test_without_base_learner(self) -> None:
        model = self.build(shot=5, base=None).eval()
        with torch.no_grad():
            prediction = model(random_episode(65, shots=5))
        assert "base" not in prediction.parts
        assert prediction.logits.shape == (2, 2, 65, 65)

    def test_vgg_switch_for_the_shallow_similarities(self) -> None:
        episode = random_episode(65, shots=2)
        vgg = {"backbone": "vgg16", "shot": 2, "image_size": 65, "channels": 16}
        torch.manual_seed(0)
        last = create_model("msanet", **vgg).eval()
        mean = create_model("msanet", vgg_corr2="mean", **vgg).eval()
        mean.load_state_dict(last.state_dict())
        with torch.no_grad():
            last_maps = last(episode).parts["similarity"]
            mean_maps = mean(episode).parts["similarity"]
        assert last_maps.shape[1] == 7
        torch.testing.assert_close(last_maps[:, 3:], mean_maps[:, 3:])
        assert not torch.allclose(last_maps[:, :3], mean_maps[:, :3], atol=1e-4)

    def test_support_encoding_drops_what_lies_outside_the_mask(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        mask = episode.support_mask[:1, 0, 0]
        small = torch.zeros_like(mask)
        small[:, 20:30, 20:30] = 1
        for chosen in (mask, small):
            encoding = model.encode_support(episode.support[:1, 0, 0], chosen)
            taps = [value for name, value in encoding.items() if name.startswith("tap ")]
            assert len(taps) == 6
            for index, tap in enumerate(taps):
                assert tap.shape[-1] == int(encoding["counts"][0, index])
                assert tap.shape[-1] < 1.3 * int((chosen == 1).sum()) / 64 + 4

    def test_taps_of_the_published_networks(self) -> None:
        counts = {
            name: len(Taps.of(create_backbone(name)).all) for name in ("resnet50", "resnet101", "vgg16")
        }
        assert counts == {"resnet50": 13, "resnet101": 30, "vgg16": 7}


def test_mean_similarity_is_the_mean_over_the_object() -> None:
    torch.manual_seed(0)
    query, support = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 4, 4)
    inside = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    inside[0, 0, 1:3, 1:4] = True
    inside[1, 0, 0, 0] = True
    objects = normalise(gather_positions(support, inside))
    counts = inside.flatten(1).sum(1)
    ours = mean_similarity(normalise(query), objects.unsqueeze(1), counts.unsqueeze(1))
    for image in range(2):
        chosen = support[image][:, inside[image, 0]]
        cosine = torch.cosine_similarity(query[image].flatten(1)[:, :, None], chosen[:, None, :], dim=0)
        torch.testing.assert_close(ours[image].flatten(), cosine.clamp_min(0).mean(1), atol=1e-4, rtol=1e-3)


def test_chunks_do_not_change_the_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, objects = torch.randn(1, 4, 3, 3), normalise(torch.randn(2, 4, 11)).unsqueeze(0)
    counts = torch.tensor([[11, 9]])
    whole = mean_similarity(query, objects, counts)
    monkeypatch.setattr("fewseg.model.meta.msanet.multi_similarity._CHUNK", 3)
    torch.testing.assert_close(mean_similarity(query, objects, counts), whole)


def test_certain_keeps_what_reaches_the_mean_of_the_positive_values() -> None:
    mask = torch.tensor([[0.0, 0.2, 0.6, 1.0], [0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.1, 0.0]])[:, None, None]
    assert confident_positions(mask)[:, 0, 0].tolist() == [
        [False, False, True, True],
        [False] * 4,
        [True, True, True, False],
    ]


def test_remembered_similarities_equal_computed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, vectors = normalise(torch.randn(1, 8, 32, 32)), normalise(torch.randn(1, 8, 60))
    memory = SimilarityMemory()
    for chosen in (slice(0, 40), slice(10, 60), slice(0, 60), slice(20, 21)):
        objects = vectors[None, :, :, chosen]
        counts = torch.tensor([[objects.shape[-1]]])
        ours = mean_similarity(query, objects, counts, memory)
        torch.testing.assert_close(ours, mean_similarity(query, objects, counts))
    products = []
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: products.append(len(a)) or torch.mm(a, b))
    memory.total(query[0].flatten(1), vectors[0, :, 19:22])
    assert products == [2]
