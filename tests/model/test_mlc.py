"""MLC's own switches, and what every meta-learner must do."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fewseg.model import create_adapter, create_model
from fewseg.model.checkpoint.published import load_published, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.meta.mlc.latent_classes import find_regions, mining_loss
from tests.model.tester import MetaLearnerTester, random_episode


class TestMLC(MetaLearnerTester):
    method = "mlc"
    any_shot = True

    def test_signed_features(self) -> None:
        model = self.build().eval()
        assert model.encode_query(random_episode(65).query)["feature"].min() < 0

    def test_scales_and_offsets_of_the_backbone_stay(self) -> None:
        model = self.build().train()
        norms = [name for name, p in model.backbone.named_parameters() if not p.requires_grad]
        assert norms and all(p.ndim == 1 for p in map(model.backbone.get_parameter, norms))
        assert all(p.requires_grad for p in model.backbone.parameters() if p.ndim > 1)

    def test_the_last_relu_can_be_kept(self) -> None:
        model, episode = self.build(last_relu=True).eval(), random_episode(65)
        with torch.no_grad():
            feature = model.encode_query(episode.query)["feature"]
            deepest = model.backbone(episode.query, (model.backbone.stages[-1],))
            prediction = model(episode)
            assert not torch.equal(prediction.logits, self.build().eval()(episode).logits)
        assert torch.equal(feature, next(iter(deepest.values())))
        assert prediction.parts["prototype"].min() >= 0

    def test_the_last_stage_can_be_kept(self) -> None:
        options = {"last_stage": "layer4", "dilation": [1, 1, 2, 4]}
        model = self.build(backbone_options={**self.backbone_options, **options}).eval()
        with torch.no_grad():
            assert model(random_episode(65)).parts["prototype"].shape[-1] == 64
        assert self.build().backbone.spec.channels("signed") == 32

    def test_statistics_of_the_backbone_can_be_learned(self) -> None:
        model = self.build(fix_bn=False).train()
        before = model.backbone.layer0[1].running_mean.clone()
        model(random_episode(65))
        assert not torch.equal(model.backbone.layer0[1].running_mean, before)

    def test_scales_and_offsets_of_the_backbone_can_be_learned(self) -> None:
        model = self.build(learn_bn_affine=True).train()
        episode = random_episode(65)
        before = model.backbone.layer0[1].running_mean.clone()
        model.losses(model(episode), episode)["main"].backward()
        trained = {id(p) for p in model.param_groups()["backbone"]}
        assert all(id(p) in trained and p.grad is not None for p in model.backbone.parameters())
        assert torch.equal(model.backbone.layer0[1].running_mean, before)

    def test_images_of_other_sizes_than_the_supports(self) -> None:
        model = self.build().eval()
        episode, other = random_episode(65), random_episode(81)
        mixed = Episode(**{**vars(episode), "query": other.query[..., :70], "query_mask": None})
        with torch.no_grad():
            assert model(mixed).logits.shape == (2, 2, 81, 70)

    def test_void_pixels_of_a_support_count_nowhere(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        image, mask = episode.support[:, 0, 0], episode.support_mask[:, 0, 0]
        with torch.no_grad():
            void = model.encode_support(image, torch.full_like(mask, 255))
        assert all(not tensor.any() for tensor in void.values())

    def test_adaptation_changes_nothing_but_the_guidance(self) -> None:
        model = self.build().eval()
        episode = random_episode(65, batch=1)
        adapted = create_adapter("eftnet", model, rounds=2)(episode).logits
        assert adapted.isfinite().all()
        with torch.no_grad():
            assert not torch.allclose(adapted, model(episode).logits)

    def test_vgg_is_read_at_its_last_convolution(self) -> None:
        model = create_model("mlc", backbone="vgg16", backbone_options={"width": 8}, image_size=65).eval()
        episode = random_episode(65)
        with torch.no_grad():
            feature = model.encode_query(episode.query)["feature"]
            assert torch.equal(feature, model.backbone(episode.query, ("layer4.2",))["layer4.2"])
            assert model(episode).logits.isfinite().all()

    def test_base_learner_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"mlc reads no further than layer3.*base: none"):
            self.build(base="pspnet")


def with_mined(episode: Episode, count: int = 2) -> Episode:
    """Add mined images: two latent classes, background, void."""
    side, axes = episode.query.shape[-1], (*episode.class_id.shape, count)
    images = random_episode(side, batch=axes[0], ways=axes[1], shots=count, seed=3).support
    label = torch.zeros(*axes, side, side, dtype=torch.int64)
    label[..., : side // 2, :] = 1
    label[..., side // 3 : side // 2, side // 2 :] = 7
    label[..., -3:] = 255
    return replace(episode, auxiliary=images, auxiliary_label=label)


BASELINE = {"mining_weight": 0.0, "background_share": 1.0, "foreground_share": 1.0}


class TestMLCReconstruction(MetaLearnerTester):
    method = "mlc-reconstruction"
    any_shot = True

    def trained_step(self, **options: object) -> tuple[FewShotModel, Prediction, dict[str, Tensor]]:
        model = self.build(**options).train()
        episode = with_mined(random_episode(65))
        prediction = model(episode)
        losses = model.losses(prediction, episode)
        sum(losses.values()).backward()
        return model, prediction, losses

    def test_switched_off_it_is_the_baseline_bit_for_bit(self) -> None:
        model, prediction, losses = self.trained_step(**BASELINE)
        plain = TestMLC().build().train()
        episode = random_episode(65)
        expected = plain(episode)
        assert torch.equal(prediction.logits, expected.logits)
        assert set(losses) == {"main"}
        plain.losses(expected, episode)["main"].backward()
        pairs = zip(model.backbone.parameters(), plain.backbone.parameters(), strict=True)
        assert all(torch.equal(a.grad, b.grad) for a, b in pairs if b.grad is not None)

    def test_mining_teaches_beside_the_episode(self) -> None:
        losses = self.trained_step()[2]
        assert set(losses) == {"main", "mining"}
        assert 0 < losses["mining"].item() < 10
        own = self.trained_step(prototype_source="self")[2]
        assert own["mining"].item() != losses["mining"].item()
        assert own["main"].item() == losses["main"].item()

    def test_two_ways_with_mined_images(self) -> None:
        model = self.build().train()
        episode = with_mined(random_episode(65, ways=2))
        losses = model.losses(model(episode), episode)
        assert set(losses) == {"main", "mining"} and all(loss.isfinite() for loss in losses.values())

    def test_global_background_follows_training_and_is_used_in_testing(self) -> None:
        model = self.build(background_momentum=1.0).train()
        episodes = [random_episode(65, seed=seed) for seed in range(3)]
        means = []
        for episode in episodes:
            background = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
            means.append(background["background"].mean(0))
            model(episode)
        torch.testing.assert_close(model.meta.global_background, torch.stack(means).mean(0).detach())
        model.eval()
        kept = model.meta.global_background.clone()
        with torch.no_grad():
            rectified = model(episodes[0])
            model.meta.options = replace(model.meta.options, background_share=1.0)
            plain = model(episodes[0])
        both = (rectified.parts["prototype"], plain.parts["prototype"])
        torch.testing.assert_close(both[0][:, 0], (both[1][:, 0] + kept) / 2)
        assert torch.equal(both[0][:, 1], both[1][:, 1])
        assert torch.equal(model.meta.global_background, kept)

    def test_similar_regions_broaden_the_foreground(self) -> None:
        meta = self.build(regions=2, region_threshold=0.5).meta
        foreground = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        regions = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [3.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
        regions = torch.cat([torch.tensor([[0.0, 0.0, 9.0]]), regions])
        counts = torch.tensor([False, True, True, True, True])
        blended = meta._with_similar(foreground, regions, counts)
        torch.testing.assert_close(blended[0], 0.5 * foreground[0] + 0.5 * torch.tensor([2.5, 0.5, 0.0]))
        assert torch.equal(blended[1], foreground[1])
        assert torch.equal(meta._with_similar(foreground, regions[:0], counts[:0]), foreground)
        assert torch.equal(meta._with_similar(foreground, regions, ~counts.any().expand(5)), foreground)

    def test_bank_takes_what_counts_and_drops_the_oldest(self) -> None:
        meta = self.build(region_bank=3).meta
        wide = torch.arange(1.0, 6.0)[:, None].expand(-1, meta.region_bank.shape[1])
        meta._keep(wide[:2], torch.tensor([True, True]))
        assert meta.region_bank[:, 0].tolist() == [0, 1, 2]
        meta._keep(wide[2:], torch.tensor([True, False, True]))
        assert meta.region_bank[:, 0].tolist() == [2, 3, 5]

    def test_bank_keeps_the_newest_regions_for_testing(self) -> None:
        model, _, _ = self.trained_step(region_bank=3, region_threshold=-1.0, background_share=1.0)
        assert model.meta.region_bank.abs().sum(1).all()
        episode = random_episode(65)
        with torch.no_grad():
            found = model.eval()(episode).logits
            model.meta.region_bank.zero_()
            model.meta.options = replace(model.meta.options, region_threshold=0.1)
            assert not torch.allclose(found, model(episode).logits)

    def test_shares_outside_their_range_are_refused(self) -> None:
        with pytest.raises(
            ValueError, match=r"'background_share' of mlc-reconstruction must be at most 1, got 2"
        ):
            self.build(background_share=2.0)

    def test_own_checkpoint_is_told_from_the_baseline_s(self) -> None:
        model = create_model("mlc-reconstruction", backbone="resnet50")
        assert recognise(to_published(model, model.state_dict())).name == "mlc-reconstruction"


def test_mining_compares_with_other_images_first() -> None:
    label = torch.tensor([[[1, 0]], [[1, 255]]])
    feature = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.0, 9.0]], [[1.0, 9.0]]]])
    regions = find_regions(feature, label, 0)
    assert regions.ids.tolist() == [0, 1] and regions.present.tolist() == [[True, True], [False, True]]
    # the first image's object meets the second one's prototype, which equals the first one's background
    expected = torch.tensor([[10.0, 10.0], [10.0, 10.0], [10.0, 0.0]]), torch.tensor([1, 0, 1])
    other = mining_loss(feature, regions, 10.0, source="other")
    torch.testing.assert_close(other, torch.nn.functional.cross_entropy(*expected), atol=1e-4, rtol=0)
    own = mining_loss(feature, regions, 10.0, source="self")
    assert own < other
    nothing = find_regions(feature, torch.full_like(label, 255), 0)
    assert mining_loss(feature, nothing, 10.0, source="other").item() == 0


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_published_file_is_read_and_recognised(backbone: str) -> None:
    model = create_model("mlc", backbone=backbone)
    published = to_published(model, model.state_dict())
    assert {
        "backbone.conv1.0.weight",
        "backbone.bn1.bias",
        "backbone.layer3.5.bn3.weight",
    } <= published.keys()
    other = create_model("mlc", backbone=backbone)
    load_published(other, published)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    found = recognise(published)
    assert (found.name, found.backbone, found.base_classes) == ("mlc", backbone, None)
