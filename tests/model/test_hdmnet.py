"""HDMNet's own switches, its losses, and what every meta-learner must do."""

from dataclasses import replace

import pytest
import torch

from fewseg.model import create_adapter, create_model
from fewseg.model.checkpoint.published import load_published, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.meta.hdmnet.hdmnet import distillation
from fewseg.model.meta.hdmnet.matching import MatchLayer
from tests.model.tester import ShotWeightsTester, random_episode


class TestHDMNet(ShotWeightsTester):
    method = "hdmnet"
    options = {"channels": 16, "matching_channels": 16}

    def test_needs_the_base_learner_but_not_the_ensemble(self) -> None:
        with pytest.raises(ValueError, match="hdmnet reads the base learner's features"):
            self.build(base=None)
        model = self.build(ensemble=None).train()
        episode = random_episode(65)
        prediction = model(episode)
        assert set(model.losses(prediction, episode)) == {"main", "distill"}

    def test_base_feature_is_not_yet_activated_and_stays_so(self) -> None:
        model = self.build().eval()
        with torch.no_grad():
            features = model.query_features(random_episode(65).query)
            before = features["base"].clone()
            encoding = model.encode_query_features(features)
            torch.testing.assert_close(encoding["base"], model.base_head(features["layer4"]))
        assert torch.equal(features["base"], before)
        assert features["base"].min() < 0

    def test_weights_of_the_supports_are_trained_where_asked(self) -> None:
        for trained in (False, True):
            model = self.build(shot=5, train_shot_weights=trained).train()
            episode = random_episode(65, shots=5)
            sum(model.losses(model(episode), episode).values()).backward()
            weight = model.meta.shot_weights.network[2].weight
            assert (weight.grad is not None) == trained
            assert ("shot_weights" in model.param_groups()) == trained

    def test_support_tokens_are_those_of_the_object(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        mask = torch.zeros_like(episode.support_mask[:1, 0, 0])
        mask[:, 20:40, 20:40] = 1
        with torch.no_grad():
            encoding = model.encode_support(episode.support[:1, 0, 0], mask)
        counts = [int(encoding[f"inside{level}"].sum()) for level in range(3)]
        assert [encoding[f"tokens{level}"].shape[-1] for level in range(3)] == counts
        assert 9 >= counts[0] > counts[1] >= counts[2] >= 1

    def test_an_object_that_fills_the_image_has_no_outside(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        full = replace(episode, support_mask=torch.ones_like(episode.support_mask))
        with torch.no_grad():
            encoding = model.encode_support(full.support[:, 0, 0], full.support_mask[:, 0, 0])
            assert encoding["embedding_object"].shape[-1] == 81
            partly = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        assert torch.equal(
            partly["embedding_object"][..., -1], torch.zeros_like(partly["embedding_object"][..., -1])
        )

    def test_losses_over_two_ways(self) -> None:
        model = self.build().train()
        episode = random_episode(65, ways=2)
        losses = model.losses(model(episode), episode)
        sum(losses.values()).backward()
        assert losses["distill"].isfinite()

    def test_weight_of_the_distillation(self) -> None:
        episode = random_episode(65)
        losses = []
        for weight in (1.0, 0.5):
            model = self.build(distill_weight=weight).eval()
            losses.append(model.losses(model(episode), episode)["distill"])
        torch.testing.assert_close(losses[0], 2 * losses[1])

    def test_adaptation_is_refused(self) -> None:
        with pytest.raises(ValueError, match="cannot adapt HDMNet: its support branch sees the masked image"):
            create_adapter("eftnet", self.build())

    def test_width_must_suit_the_heads(self) -> None:
        with pytest.raises(ValueError, match="multiple of 8, got 12"):
            self.build(matching_channels=12)


def test_distillation_teaches_from_coarse_to_fine_only() -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[:, :, :4] = 1
    scores = [torch.randn(1, side, side, requires_grad=True) for side in (2, 4, 8)]
    distillation(scores, label).backward()
    assert all(score.grad.abs().sum() > 0 for score in scores)
    finest = scores[2].grad.clone()
    for score in scores:
        score.grad = None
    third = distillation([scores[0], scores[1]], label)
    third.backward()
    assert scores[2].grad is None and finest.abs().sum() > 0
    perfect = torch.where(torch.arange(8) < 4, 0.0, -1e9).expand(1, 8, 8)
    assert distillation([perfect], label).abs() < 1e-5


def test_matching_is_the_plain_attention_over_query_positions() -> None:
    """Masked tokens may be left out: every token shares its attention among the query positions by itself."""
    torch.manual_seed(0)
    layer = MatchLayer(16).eval()
    x, tokens = torch.randn(2, 16, 3, 4), torch.randn(2, 7, 16)
    inside = torch.tensor([[1.0] * 5 + [0.0] * 2, [1.0] * 2 + [0.0] * 5])
    matched, score = layer(x, tokens, inside)
    for image, count in enumerate((5, 2)):
        alone = layer(x[image : image + 1], tokens[image : image + 1, :count], torch.ones(1, count))
        torch.testing.assert_close(matched[image : image + 1], alone[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(score[image : image + 1], alone[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shot", [1, 5])
def test_published_file_is_read_and_recognised(shot: int) -> None:
    model = create_model("hdmnet", backbone="resnet50", shot=shot)
    published = to_published(model, model.state_dict())
    assert "base_learnear.2.bias" in published and "ppm.features.0.1.weight" in published
    assert ("kshot_rw.0.weight" in published) == (shot > 1)
    load_published(model, published)
    found = recognise(published)
    assert (found.name, found.backbone, found.shot, found.base_classes) == ("hdmnet", "resnet50", shot, 15)
