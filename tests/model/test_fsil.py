"""FSIL's fusion with an auxiliary set, and what every meta-learner must do."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fewseg.model import create_adapter, create_model
from fewseg.model.checkpoint.published import load_published, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode
from tests.model.tester import MetaLearnerTester, random_episode


def with_auxiliary(episode: Episode, count: int = 3, seed: int = 1) -> Episode:
    shape = (*episode.class_id.shape, count)
    side = episode.query.shape[-1]
    drawn = random_episode(side, batch=shape[0], ways=shape[1], shots=max(count, 1), seed=seed).support
    return replace(episode, auxiliary=drawn[:, :, :count])


def training_losses(model, episode: Episode) -> dict[str, Tensor]:
    return model.losses(model.train()(episode), episode)


class TestFSIL(MetaLearnerTester):
    method = "fsil"
    any_shot = True

    def logits(self, episode: Episode, **options: object) -> Tensor:
        with torch.no_grad():
            return self.build(**options).eval()(episode).logits

    @pytest.mark.parametrize(("ways", "shots"), [(1, 1), (2, 2)])
    def test_without_auxiliary_images_it_is_plain_prototype_matching(self, ways: int, shots: int) -> None:
        episode = random_episode(65, ways=ways, shots=shots)
        plain = self.logits(episode)
        filled = with_auxiliary(episode)
        torch.manual_seed(0)
        options = {"backbone": "resnet18", "backbone_options": {"width": 8}, "image_size": 65}
        panet = create_model("panet", void_as_background=False, **options).eval()
        with torch.no_grad():
            assert torch.equal(plain, panet(episode).logits)
        assert torch.equal(self.logits(with_auxiliary(episode, 0)), plain)
        assert torch.equal(self.logits(filled, iterations=0), plain)
        assert torch.equal(self.logits(filled, threshold=1.0), plain)
        assert torch.equal(self.logits(filled, fusion_weight=0.0), plain)
        assert not torch.allclose(self.logits(filled, threshold=-1.0), plain)

    def test_order_of_the_auxiliary_images_does_not_matter(self) -> None:
        episode = with_auxiliary(random_episode(65, ways=2))
        turned = replace(episode, auxiliary=episode.auxiliary.flip(2))
        torch.testing.assert_close(self.logits(episode), self.logits(turned))

    def test_the_support_itself_changes_hardly_anything(self) -> None:
        episode = random_episode(65)
        same = replace(episode, auxiliary=episode.support.clone())
        plain, fused = self.logits(episode), self.logits(same, threshold=-1.0)
        assert (plain.argmax(1) == fused.argmax(1)).float().mean() > 0.85

    def test_distillation_keeps_noise_out(self) -> None:
        model = self.build().eval()
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(1, 1, 32, generator=generator)
        prototype = torch.cat([-direction, direction], 1)
        noise, inside = torch.randn(1, 1, 4, 32, 36, generator=generator), torch.ones(1, 1, 4, 36)
        moved = {}
        for distill in (True, False):
            model.meta.options = replace(model.meta.options, distill=distill, weighting="cosine")
            fused = model.meta.fuse(prototype, noise, inside)["prototype"]
            moved[distill] = 1 - cosine_similarity(fused, prototype, dim=2)[0, 1]
        assert moved[True] < moved[False]

    def test_what_resembles_the_prototype_is_averaged_in(self) -> None:
        model = self.build(iterations=1, weighting="cosine").eval()
        background, own, far = torch.eye(3)
        prototype = torch.stack([background, own])[None]
        near = own + 0.5 * far
        auxiliary = torch.stack([near, far, own], 1).view(1, 1, 1, 3, 3)
        guidance = model.meta.fuse(prototype, auxiliary, torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 3))
        torch.testing.assert_close(guidance["prototype"][0, 1], (own + near) / 2, atol=1e-4, rtol=0)
        assert torch.equal(guidance["prototype"][0, 0], background)
        assert guidance["kept"].item() == 0.5

    @pytest.mark.parametrize(
        "changes",
        [{"weighting": "cosine"}, {"fuse_from": "previous"}, {"update_background": True}, {"distill": False}],
        ids=str,
    )
    def test_every_way_of_fusing_has_its_own_answer(self, changes: dict[str, object]) -> None:
        episode = with_auxiliary(random_episode(65))
        assert not torch.allclose(
            self.logits(episode, threshold=0.3), self.logits(episode, **{"threshold": 0.3, **changes})
        )

    def test_pooling_on_the_grid_of_the_features(self) -> None:
        episode = random_episode(65)
        assert not torch.allclose(self.logits(episode), self.logits(episode, map_at="feature"))

    def test_losses_of_query_and_supports(self) -> None:
        model = self.build(threshold=-1.0)
        episode = with_auxiliary(random_episode(65, ways=2, shots=2))
        losses = training_losses(model, episode)
        assert set(losses) == {"main", "support"}
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.backbone.parameters())

    def test_alignment_loss_is_panet_s(self) -> None:
        episode = random_episode(65, ways=2, shots=2)
        losses = training_losses(self.build(align_weight=0.5), episode)
        options = {"backbone": "resnet18", "backbone_options": {"width": 8}, "image_size": 65}
        torch.manual_seed(0)
        panet = create_model("panet", void_as_background=False, **options)
        assert set(losses) == {"main", "support", "align"}
        torch.testing.assert_close(losses["align"], 0.5 * training_losses(panet, episode)["align"])

    def test_loss_on_the_supports_falls(self) -> None:
        model = self.build(threshold=-1.0)
        episode = with_auxiliary(random_episode(65))
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        values = []
        for _ in range(6):
            losses = training_losses(model, episode)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            values.append(losses["support"].item())
        assert values[-1] < values[0]

    @pytest.mark.parametrize("learns", [True, False])
    def test_auxiliary_images_teach_only_if_wanted(self, learns: bool) -> None:
        model = self.build(threshold=-1.0, auxiliary_gradient=learns)
        episode = with_auxiliary(random_episode(65))
        episode.auxiliary.requires_grad_(True)
        sum(training_losses(model, episode).values()).backward()
        assert (episode.auxiliary.grad is not None) == learns

    def test_encoding_once_equals_the_whole_with_auxiliary_images(self) -> None:
        model = self.build(threshold=0.3).eval()
        episode = with_auxiliary(random_episode(65, ways=2))
        with torch.no_grad():
            singles = [model.encode_auxiliary(image[None]) for image in episode.auxiliary.flatten(0, 2)]
            joined = torch.cat([s["auxiliary"] for s in singles]).unflatten(0, episode.auxiliary.shape[:3])
            torch.testing.assert_close(joined, model.encode_auxiliary_of(episode)["auxiliary"])

    def test_adaptation_sees_the_auxiliary_set(self) -> None:
        adapter = create_adapter("eftnet", self.build(threshold=0.3).eval(), rounds=2)
        episode = random_episode(65, batch=1)
        fused = adapter(with_auxiliary(episode)).logits
        assert fused.isfinite().all() and not torch.allclose(fused, adapter(episode).logits)

    def test_ensemble_is_refused(self) -> None:
        with pytest.raises(ValueError, match="fsil segments all ways at once"):
            self.build(base="pspnet", ensemble="bam")

    def test_negative_iterations_are_refused(self) -> None:
        with pytest.raises(ValueError, match="'iterations' of fsil must be at least 0, got -1"):
            self.build(iterations=-1)


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_own_layout_is_read_and_recognised(backbone: str) -> None:
    model = create_model("fsil", backbone=backbone)
    published = to_published(model, model.state_dict())
    assert all(name.startswith("encoder.") for name in published)
    load_published(model, published)
    assert (recognise(published).name, recognise(published).backbone) == ("fsil", backbone)
