"""PFENet's own switches, and what every meta-learner must do."""

import pytest
import torch

from fewseg.model.layer.enrichment import grid_sizes
from tests.model.tester import MetaLearnerTester, random_episode


class TestPFENet(MetaLearnerTester):
    method = "pfenet"
    options = {"channels": 16, "ppm_scales": (1.0, 0.5, 0.25, 0.125)}
    any_shot = True

    def test_composed_with_base_learner_and_ensemble(self) -> None:
        model = self.build(base="pspnet", ensemble="bam").train()
        episode = random_episode(65)
        prediction = model(episode)
        losses = model.losses(prediction, episode)
        assert list(losses) == ["main", "meta", "inner", "base"]
        assert prediction.parts["base"].shape == (2, 16, 65, 65)
        sum(losses.values()).backward()
        groups = model.param_groups()
        assert {"merge", "classify", "gram_merge", "cls_merge"} <= set(groups)
        assert all(p.grad is not None for group in groups.values() for p in group)

    def test_base_learner_alone(self) -> None:
        model = self.build(base="pspnet", ensemble=None).eval()
        with torch.no_grad():
            prediction = model(random_episode(65))
        assert {"base", "prior", "prototype", "inner0", "inner3"} <= set(prediction.parts)
        assert "meta" not in prediction.parts

    def test_batch_statistics_drift_only_where_published_behaviour_is_asked_for(self) -> None:
        model = self.build(fix_bn=False).train()
        model(random_episode(65))
        counted = {int(v) for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
        assert counted == {2}  # queries, then supports

    def test_fractions_equal_the_sizes_that_they_stand_for(self) -> None:
        episode = random_episode(65)  # a grid of 9
        fractions = self.build().eval()
        sizes = self.build(ppm_scales=[9, 4, 2, 1.0 / 9]).eval()
        with torch.no_grad():
            assert torch.equal(fractions(episode).logits, sizes(episode).logits)

    def test_grid_sizes(self) -> None:
        assert grid_sizes((1.0, 0.5, 0.25, 0.125), (81, 81)) == [(81, 81), (40, 40), (20, 20), (10, 10)]
        assert grid_sizes((60, 30), (9, 7)) == [(60, 60), (30, 30)]
        assert grid_sizes((0.125,), (7, 16)) == [(1, 2)]

    def test_any_number_of_scales(self) -> None:
        model = self.build(ppm_scales=[5]).eval()
        with torch.no_grad():
            prediction = model(random_episode(65))
        assert prediction.parts["inner0"].shape == (2, 2, 5, 5)
        assert "inner1" not in prediction.parts

    @pytest.mark.parametrize("scales", [(), (0, 1.0), (60, 30.5), (-1,), ("60",)])
    def test_impossible_scales_are_refused(self, scales: tuple[object, ...]) -> None:
        with pytest.raises(ValueError, match=r"ppm_scales.* must be"):
            self.build(ppm_scales=scales)

    def test_equal_supports_are_one_support(self) -> None:
        episode = random_episode(65)
        repeated = type(episode)(
            **{
                **vars(episode),
                "support": episode.support.repeat(1, 1, 3, 1, 1, 1),
                "support_mask": episode.support_mask.repeat(1, 1, 3, 1, 1),
            }
        )
        model = self.build().eval()
        with torch.no_grad():
            torch.testing.assert_close(model(repeated).logits, model(episode).logits)

    def test_inner_weight(self) -> None:
        episode = random_episode(65)
        losses = []
        for weight in (1.0, 0.25):
            model = self.build(aux_weight=weight).eval()
            losses.append(model.losses(model(episode), episode))
        torch.testing.assert_close(losses[1]["inner"], losses[0]["inner"] / 4)
        torch.testing.assert_close(losses[1]["main"], losses[0]["main"])

    def test_two_ways_are_trained_each_on_its_own_label(self) -> None:
        model = self.build().train()
        episode = random_episode(65, ways=2)
        losses = model.losses(model(episode), episode)
        assert all(loss.isfinite() for loss in losses.values())
