"""PANet's own switches, and what every meta-learner must do."""

import pytest
import torch

from fewseg.model.contract import UNLABELLED, Episode
from fewseg.model.layer.pooling import pool_at_image_resolution
from fewseg.model.layer.resize import resize
from tests.model.tester import MetaLearnerTester, random_episode


class TestPANet(MetaLearnerTester):
    method = "panet"
    any_shot = True

    def test_signed_features(self) -> None:
        model = self.build().eval()
        assert model.encode_query(random_episode(65).query)["feature"].min() < 0

    def test_two_ways_train(self) -> None:
        model = self.build().train()
        episode = random_episode(65, ways=2, shots=2)
        losses = model.losses(model(episode), episode)
        assert set(losses) == {"main", "align"}
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.backbone.parameters())

    def test_without_alignment_loss(self) -> None:
        model = self.build(align=False).train()
        episode = random_episode(65)
        assert set(model.losses(model(episode), episode)) == {"main"}

    def test_base_learner_would_freeze_all_that_learns(self) -> None:
        with pytest.raises(ValueError, match=r"trains only its backbone.*base: none"):
            self.build(base="pspnet")

    def test_evaluation_keeps_prototypes_only(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        assert {name: tensor.shape for name, tensor in support.items()} == {
            "foreground": (2, 64),
            "background": (2, 64),
        }

    @pytest.mark.parametrize(
        ("label", "void_as_background", "counts"),
        [(255, True, True), (255, False, False), (UNLABELLED, True, False)],
    )
    def test_what_counts_as_background(self, label: int, void_as_background: bool, counts: bool) -> None:
        model = self.build(void_as_background=void_as_background).eval()
        episode = random_episode(65)
        mask = episode.support_mask[:, 0, 0].clamp_max(1)
        marked = mask.clone()
        marked[:, :20][mask[:, :20] == 0] = label
        with torch.no_grad():
            plain = model.encode_support(episode.support[:, 0, 0], mask)["background"]
            other = model.encode_support(episode.support[:, 0, 0], marked)["background"]
        assert torch.equal(plain, other) == counts

    def test_way_that_is_predicted_nowhere_adds_no_alignment_loss(self) -> None:
        model = self.build().train()
        episode = random_episode(65)
        prediction = model(episode)
        prediction.parts["score"][:, 1] = -100.0
        assert model.losses(prediction, episode)["align"].item() == 0.0

    def test_support_without_any_label_gives_finite_losses(self) -> None:
        model = self.build().train()
        episode = random_episode(65)
        blank = Episode(
            **{**vars(episode), "support_mask": torch.full_like(episode.support_mask, UNLABELLED)}
        )
        losses = model.losses(model(blank), blank)
        assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("align_corners", [False, True])
def test_pooling_equals_pooling_of_enlarged_features(align_corners: bool) -> None:
    feature = torch.randn(2, 5, 9, 7, requires_grad=True)
    mask = torch.rand(2, 65, 50) > 0.7
    enlarged = resize(feature, (65, 50), align_corners=align_corners)
    expected = (enlarged * mask[:, None]).sum((2, 3)) / (mask.sum((1, 2)) + 1e-5)[:, None]
    actual = pool_at_image_resolution(feature, mask, align_corners=align_corners)
    torch.testing.assert_close(actual, expected)
    ours, theirs = (torch.autograd.grad(x.square().sum(), feature)[0] for x in (actual, expected))
    torch.testing.assert_close(ours, theirs)
