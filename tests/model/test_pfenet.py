"""PFENet's own switches, and what every meta-learner must do."""

from itertools import combinations

import pytest
import torch

from fewseg.model.layer.enrichment import grid_sizes
from tests.model.strategies import StrategiesTester, weights_of
from tests.model.tester import random_episode

INTERACTIONS = ("top_down", "bottom_up", "top_down_bottom_up", "bottom_up_top_down", "none")


class TestPFENet(StrategiesTester):
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

    def test_without_the_prior_no_high_feature_is_read(self) -> None:
        model, episode = self.build(prior=False), random_episode(65)
        assert model.meta.inputs.query == ("middle",)
        assert model.meta.decoder.merge[0][0].in_channels == 2 * 16
        prediction = model.eval()(episode)
        assert "prior" not in prediction.parts
        sum(model.losses(prediction, episode).values()).backward()
        assert all(p.grad is not None for p in model.meta.parameters())
        assert model(random_episode(65, shots=3)).logits.isfinite().all()

    def test_without_the_prior_a_base_learner_still_reads_the_high_feature(self) -> None:
        model = self.build(prior=False, base="pspnet", ensemble="bam").eval()
        with torch.no_grad():
            assert model(random_episode(65)).logits.isfinite().all()

    def test_interactions_between_scales_change_the_outcome(self) -> None:
        """One path more has weights more, none has none; a single scale knows no difference of direction."""
        episode, weights, logits = random_episode(65), {}, {}
        state = self.build(inter_scale_interaction="top_down_bottom_up").state_dict()
        for interaction in INTERACTIONS:
            model = self.build(inter_scale_interaction=interaction).eval()
            model.load_state_dict({name: state[name] for name in model.state_dict()})
            weights[interaction] = weights_of(model)
            with torch.no_grad():
                logits[interaction] = model(episode).logits
        for first, second in combinations(INTERACTIONS, 2):
            assert not torch.allclose(logits[first], logits[second], atol=1e-6)
        assert weights["top_down"] == weights["bottom_up"]
        assert {name for name in weights["top_down"] - weights["none"] if "link" not in name} == set()
        assert {name.split(".")[1] for name in weights["bottom_up_top_down"] - weights["bottom_up"]} == {
            "second_link",
            "second_enrich",
        }

    def test_one_path_after_the_other(self) -> None:
        """If the second path adds nothing, the first alone is left."""
        episode = random_episode(65)
        for both, first in (("top_down_bottom_up", "top_down"), ("bottom_up_top_down", "bottom_up")):
            model = self.build(inter_scale_interaction=both).eval()
            alone = self.build(inter_scale_interaction=first).eval()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.mul_(0 if "second" in name else 1)
                alone.load_state_dict({name: model.state_dict()[name] for name in alone.state_dict()})
                torch.testing.assert_close(model(episode).logits, alone(episode).logits)

    def test_other_modules_in_place_of_feature_enrichment(self) -> None:
        episode, weights, logits = random_episode(65), {}, []
        for enrichment in ("none", "ppm", "aspp"):
            model = self.build(feature_enrichment=enrichment)
            prediction = model.eval()(episode)
            losses = model.losses(prediction, episode)
            assert list(losses) == ["main"]
            losses["main"].backward()
            assert all(p.grad is not None for p in model.meta.parameters())
            weights[enrichment] = weights_of(model)
            logits.append(prediction.logits)
        assert all("context" in name for name in (weights["ppm"] | weights["aspp"]) - weights["none"])
        assert weights["none"] < weights["ppm"] and weights["none"] < weights["aspp"]
        assert not any("link" in name or "inner" in name for name in weights["none"])
        assert not torch.allclose(logits[0], logits[1]) and not torch.allclose(logits[1], logits[2])

    @pytest.mark.parametrize("enrichment", ["none", "aspp"])
    def test_strategies_of_rare_on_a_single_scale(self, enrichment: str) -> None:
        options = {"feature_enrichment": enrichment, "error_prone_region": True, "adaptive_integration": True}
        model = self.build(**options, prior=False).train()
        episode = random_episode(65, shots=2)
        sum(model.losses(model(episode), episode).values()).backward()
        assert all(p.grad is not None for p in model.meta.parameters())

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
