"""BAM's own switches, and what every meta-learner must do."""

import pytest
import torch

from fewseg.model.ensemble import BaseMetaEnsemble
from fewseg.model.options import OptionError
from tests.model.tester import ShotWeightsTester, random_episode


class TestBAM(ShotWeightsTester):
    method = "bam"
    options = {"channels": 16}

    def test_without_base_learner(self) -> None:
        model = self.build(base=None).eval()
        with torch.no_grad():
            prediction = model(random_episode(65))
        assert "base" not in prediction.parts
        assert prediction.logits.shape == (2, 2, 65, 65)

    def test_base_class_of_the_episode_is_not_background_in_training(self) -> None:
        model = self.build()
        episode = random_episode(65)
        query = model.encode_query(episode.query)
        meta = torch.zeros(2, 2, *query["base"].shape[-2:])
        with torch.no_grad():
            model.ensemble.cls_merge.weight.copy_(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))
            distance = torch.zeros(2)
            known = model.ensemble(meta, query["base"], distance)[:, 0]
            without = model.ensemble(meta, query["base"], distance, torch.tensor([3, 14]))[:, 0]
        probability = query["base"].softmax(1)
        torch.testing.assert_close(known[0] - without[0], probability[0, 4])
        torch.testing.assert_close(known[1] - without[1], probability[1, 15])

    def test_parts_of_the_ensemble_alone(self) -> None:
        """A part that is switched off has no weights, and the other does what it does in the whole."""
        episode, logits = random_episode(65), {}
        parts = {"adjustment_factor": "gram_merge", "base_prediction": "cls_merge"}
        whole = self.build()
        with torch.no_grad():
            whole.ensemble.gram_merge.weight.copy_(torch.tensor([0.8, 0.5]).view(1, 2, 1, 1))
            whole.ensemble.cls_merge.weight.copy_(torch.tensor([0.9, 0.7]).view(1, 2, 1, 1))
        for off, weights in parts.items():
            model = self.build(ensemble_options={off: False})
            state = whole.state_dict()
            removed = {name for name in state if name not in model.state_dict()}
            assert removed == {f"ensemble.{weights}.weight"}
            assert weights not in model.param_groups()
            model.load_state_dict({name: state[name] for name in model.state_dict()})
            prediction = model.eval()(episode)
            assert ("scene_distance" in prediction.parts) == (off != "adjustment_factor")
            sum(model.losses(prediction, episode).values()).backward()
            assert all(p.grad is not None for p in model.ensemble.parameters())
            logits[off] = prediction.logits.detach()
        with torch.no_grad():
            everything = whole.eval()(episode).logits
        assert not torch.allclose(logits["adjustment_factor"], everything, atol=1e-3)
        assert not torch.allclose(logits["base_prediction"], everything, atol=1e-3)

    def test_adjustment_factor_alone_does_not_change_the_mask(self) -> None:
        ensemble = BaseMetaEnsemble(options=BaseMetaEnsemble.Options(base_prediction=False))
        torch.manual_seed(0)
        meta, base = torch.randn(2, 2, 5, 5), torch.randn(2, 4, 5, 5)
        with torch.no_grad():
            ensemble.gram_merge.weight.copy_(torch.tensor([0.8, 0.5]).view(1, 2, 1, 1))
            final = ensemble(meta, base, torch.tensor([0.3, 0.6]))
        assert torch.equal(final.argmax(1), meta.argmax(1))
        torch.testing.assert_close(final[1], 0.8 * meta.softmax(1)[1] + 0.5 * 0.6)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"base": None}, "there is none; leave them out"),
            ({"ensemble_options": {"psi": True}}, "the ensemble bam has no option 'psi'"),
            (
                {"ensemble_options": {"adjustment_factor": False, "base_prediction": False}},
                "changes nothing; leave it out",
            ),
        ],
    )
    def test_impossible_options_of_the_ensemble(self, changes: dict[str, object], said: str) -> None:
        with pytest.raises(OptionError, match=said) as refused:
            self.build(**{"ensemble_options": {"adjustment_factor": False}, **changes})
        assert refused.value.key.startswith("ensemble_options")
