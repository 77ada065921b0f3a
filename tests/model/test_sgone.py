"""SG-One's own switches, and what every meta-learner must do."""

import pytest
import torch

from fewseg.model import create_adapter, create_model
from fewseg.model.checkpoint.published import load_published, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode
from tests.model.tester import MetaLearnerTester, random_episode


def with_void(episode: Episode, value: int) -> Episode:
    """Give the void of supports and query another label."""
    changed = {
        name: getattr(episode, name).masked_fill(getattr(episode, name) == 255, value)
        for name in ("support_mask", "query_mask")
    }
    return Episode(**{**vars(episode), **changed})


class TestSGOne(MetaLearnerTester):
    method = "sgone"
    options = {"channels": 16}
    any_shot = True

    def test_union_of_shots_covers_what_each_shot_finds(self) -> None:
        model = self.build(shot=5, kshot="max").eval()
        episode = random_episode(65, shots=5)
        with torch.no_grad():
            union = model(episode)
            singles = [
                model(
                    Episode(
                        **{
                            **vars(episode),
                            "support": episode.support[:, :, k : k + 1],
                            "support_mask": episode.support_mask[:, :, k : k + 1],
                        }
                    )
                ).logits.argmax(1)
                for k in range(5)
            ]
        assert union.parts["prototype"].shape == (2, 5, 64)
        assert torch.equal(union.logits.argmax(1), torch.stack(singles).amax(0))

    def test_both_rules_train_with_several_shots(self) -> None:
        for kshot in ("avg", "max"):
            model = self.build(shot=2, kshot=kshot).train()
            episode = random_episode(65, shots=2)
            model.losses(model(episode), episode)["main"].backward()
            assert all(p.grad.isfinite().all() for p in model.parameters())

    def test_rim_of_the_last_convolution_is_its_bias(self) -> None:
        episode = random_episode(65)
        padded, plain = self.build().eval(), self.build(exit_padding=0).eval()
        for model in (padded, plain):
            torch.nn.init.constant_(model.meta.exit.bias, 0.25)
        with torch.no_grad():
            low = padded(episode).parts["shot_logits"][:, 0]
            inner = plain(episode).parts["shot_logits"][:, 0]
        assert low.shape[-2:] == (11, 11)
        torch.testing.assert_close(low[..., 1:-1, 1:-1], inner)
        assert (low[..., 0, :] == 0.25).all()
        assert (low[..., -1] == 0.25).all()

    @pytest.mark.parametrize("switch", [False, True])
    def test_void_is_foreground_in_training_only_where_asked_for(self, switch: bool) -> None:
        model = self.build(void_as_foreground=switch)
        episode = random_episode(65)
        marked = with_void(episode, 1)
        model.train()
        losses = [model.losses(model(e), e)["main"].item() for e in (episode, marked)]
        assert (losses[0] == losses[1]) == switch
        model.eval()
        with torch.no_grad():
            tested = [model(e).logits for e in (episode, with_void(episode, 0))]
            other = model(marked).logits
        assert torch.equal(*tested)
        assert not torch.equal(tested[0], other)

    def test_several_classes_at_once_are_as_many_binary_tasks(self) -> None:
        """The published multi-class setting: the class of the greatest foreground, where there is any."""
        model = self.build().eval()
        episode = random_episode(65, ways=3)
        with torch.no_grad():
            joint = model(episode).logits
            single = [
                model(
                    Episode(
                        query=episode.query,
                        support=episode.support[:, way : way + 1],
                        support_mask=episode.support_mask[:, way : way + 1],
                        class_id=episode.class_id[:, way : way + 1],
                    )
                ).logits.softmax(1)[:, 1]
                for way in range(3)
            ]
        probability = torch.stack(single, 1)
        label = torch.where(probability.amax(1) > 0.5, probability.argmax(1) + 1, 0)
        assert (joint.argmax(1) == label).float().mean() > 0.9999

    def test_composed_with_base_learner_and_ensemble(self) -> None:
        model = self.build(base="pspnet", ensemble="bam").train()
        episode = random_episode(65)
        prediction = model(episode)
        losses = model.losses(prediction, episode)
        assert list(losses) == ["main", "meta", "base"]
        sum(losses.values()).backward()
        groups = model.param_groups()
        assert {"gram_merge", "guidance"} <= set(groups)
        assert not any(name.startswith("backbone") for name in groups)  # the base learner needs it as it is
        assert all(p.grad is None for p in model.backbone.parameters())
        assert all(p.grad is not None for group in groups.values() for p in group)

    @pytest.mark.parametrize("kshot", ["avg", "max"])
    def test_adaptation_restores_the_model(self, kshot: str) -> None:
        model = self.build(shot=2, kshot=kshot).eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        episode = random_episode(65, batch=1, shots=2)
        prediction = create_adapter("eftnet", model, rounds=2)(episode)
        assert prediction.logits.shape == (1, 2, 65, 65)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_channel_order(self) -> None:
        """What is blue and what is red swaps places before the published constants are subtracted."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        episode = random_episode(65)
        images = {name: getattr(episode, name) * std + mean for name in ("query", "support")}
        swapped = {name: (image.flip(-3) - mean) / std for name, image in images.items()}
        with torch.no_grad():
            bgr = self.build(channel_order="bgr").eval()(episode).logits
            rgb = self.build().eval()(Episode(**{**vars(episode), **swapped})).logits
        torch.testing.assert_close(bgr, rgb)

    def test_published_rates(self) -> None:
        model = create_model("sgone", backbone="vgg16", channels=8)
        rules = model.meta.learning.group_rules
        rates = {name: rules[name].rate if name in rules else 1.0 for name in model.param_groups()}
        assert rates.pop("guidance") == 10
        assert rates.pop("guidance.bias") == 20
        assert {rate for name, rate in rates.items() if name.endswith(".bias")} == {2}
        assert {rate for name, rate in rates.items() if not name.endswith(".bias")} == {1}


def test_published_file_is_read_and_recognised() -> None:
    model = create_model("sgone", backbone="vgg16")
    state = to_published(model, model.state_dict())
    assert {"netB.features_5.4.weight", "netB.cls.0.bias", "classifier_6.0.weight", "exit_layer.bias"} <= set(
        state
    )
    load_published(model, {"global_counter": 5, "state_dict": state, "optimizer": {}})
    found = recognise(state)
    assert (found.name, found.backbone, found.base_classes) == ("sgone", "vgg16", None)


def test_union_takes_the_surest_shot() -> None:
    logits = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[5.0, 0.0], [4.0, 7.0]]])  # [K,2,W]
    union = TestSGOne().build().meta.join_shots(logits[None, :, :, None])
    assert torch.equal(union[0, :, 0], torch.tensor([[0.0, 0.0], [3.0, 7.0]]))
