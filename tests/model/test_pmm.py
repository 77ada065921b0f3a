"""PMMs' and RPMMs' own switches, their pieces one by one, and what every meta-learner must do."""

import pytest
import torch
from torch import nn

from fewseg.engine.training.optimisation import PolySchedule, create_optimizer
from fewseg.model import create_adapter, create_model
from fewseg.model.checkpoint.published import load_published, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.mixture import PrototypeMixture, object_posterior
from tests.model.tester import MetaLearnerTester, random_episode


class MixtureTester(MetaLearnerTester):
    """What both methods share."""

    options = {"channels": 16}
    any_shot = True

    def test_supports_get_no_gradient(self) -> None:
        model = self.build().train()
        episode = random_episode(65)
        support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        assert not any(tensor.requires_grad for tensor in support.values())

    def test_statistics_see_supports_before_queries(self) -> None:
        model = self.build().train()
        episode = random_episode(65)
        model(episode)
        other = self.build().train()
        other.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        other.encode_query(episode.query)
        norms = [m.meta.reduce[1].running_mean for m in (model, other)]
        torch.testing.assert_close(*norms)

    def test_scales_of_the_backbone_stay(self) -> None:
        model = self.build()
        trained = {id(p) for p in model.param_groups()["backbone"]}
        norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert not any(id(p) in trained for norm in norms for p in norm.parameters())

    def test_frozen_backbone_neither_learns_nor_gathers(self) -> None:
        model = self.build(freeze_backbone=True).train()
        before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
        head = model.meta.reduce[1].running_mean.clone()
        episode = random_episode(65)
        sum(model.losses(model(episode), episode).values()).backward()
        assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
        assert all(p.grad is None for p in model.backbone.parameters())
        assert "backbone" not in model.param_groups()
        assert not torch.equal(model.meta.reduce[1].running_mean, head)

    def test_new_starts_give_other_results(self) -> None:
        episode = random_episode(65)
        fixed, drawn = self.build(), self.build(em_init="per_forward")
        drawn.load_state_dict(fixed.state_dict())
        with torch.no_grad():
            logits = [model.eval()(episode).logits for model in (fixed, drawn, drawn)]
        assert not torch.equal(logits[0], logits[1])
        assert not torch.equal(logits[1], logits[2])

    def test_several_shots_are_fitted_together(self) -> None:
        model = self.build().eval()
        episode = random_episode(65, shots=2)
        with torch.no_grad():
            prediction = model(episode)
            feature = model._features(episode.support[:, 0].flatten(0, 1), set(model.meta.inputs.support))
            encoded = model.meta.encode_support(feature, episode.support_mask[:, 0].flatten(0, 1))
        tall = {
            name: torch.cat(list(value.unflatten(0, (2, 2)).unbind(1)), 2)[:, None]
            for name, value in encoded.items()
        }
        whole = model.meta.match({}, tall)
        torch.testing.assert_close(prediction.parts["object"], whole["object"], atol=1e-5, rtol=1e-4)
        assert prediction.parts["area"].shape == (2, 2)

    def test_void_pixels_of_the_query_are_ignored_unless_published_behaviour_is_asked_for(self) -> None:
        episode = random_episode(65)
        label = episode.query_mask
        cleared = Episode(**{**vars(episode), "query_mask": label.masked_fill(label == 255, 0)})
        losses = []
        for published in (False, True):
            model = self.build(void_as_background=published).eval()
            with torch.no_grad():
                prediction = model(episode)
            losses.append([model.losses(prediction, e)["main"].item() for e in (episode, cleared)])
        assert losses[1][0] == losses[1][1] == losses[0][1]
        assert losses[0][0] != losses[0][1]

    @pytest.mark.parametrize("size", [0, 1, 9])
    def test_fewer_positions_than_components(self, size: int) -> None:
        """A speck between the positions, one position's worth, and a little more."""
        model = self.build().eval()
        episode = random_episode(65)
        mask = torch.zeros_like(episode.support_mask)
        mask[..., 29 : 29 + size, 29 : 29 + size] = 1
        mask[..., 60, 60] = 1
        with torch.no_grad():
            prediction = model(Episode(**{**vars(episode), "support_mask": mask}))
        for name, part in prediction.parts.items():
            assert part.isfinite().all(), name
        length = prediction.parts["object"].norm(dim=2)
        assert bool(((length < 1e-3) | ((length - 1).abs() < 1e-3)).all())

    def test_with_base_learner_and_ensemble(self) -> None:
        model = self.build(
            base="pspnet",
            ensemble="bam",
            freeze_backbone=True,
            backbone_options={"width": 8, "last_stage": "layer4"},
        ).train()
        episode = random_episode(65)
        losses = model.losses(model(episode), episode)
        assert {"main", "meta", "base"} <= set(losses)
        losses.pop("base")
        sum(losses.values()).backward()
        assert all(p.grad is not None for group in model.param_groups().values() for p in group)

    def test_backbone_under_a_base_learner_stays(self) -> None:
        model = self.build(base="pspnet", backbone_options={"width": 8, "last_stage": "layer4"}).train()
        before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
        model(random_episode(65))
        assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
        assert "backbone" not in model.param_groups()

    def test_reduced_precision_spares_the_mixtures(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        with torch.no_grad():
            full = model(episode)
            with torch.autocast("cpu", torch.bfloat16):
                reduced = model(episode)
        assert reduced.parts["object"].dtype == torch.float32
        torch.testing.assert_close(reduced.parts["object"], full.parts["object"], atol=0.02, rtol=0.02)

    def test_groups_learn_at_their_own_rates(self) -> None:
        model = self.build()
        groups = model.param_groups()
        found = [id(p) for group in groups.values() for p in group]
        assert sorted(found) == sorted(id(p) for p in model.parameters() if p.requires_grad)
        optimizer = create_optimizer(groups, lr=1.0, rules=model.meta.learning.group_rules)
        PolySchedule(1.0, 100, power=0, index_split=1).apply(optimizer, 1)
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        assert (rates["backbone"], rates["backbone.bias"]) == (1, 2)
        assert {rates[name] for name in rates if not name.startswith("backbone")} == {10, 20}
        assert rates["refine.bias"] == 20

    def test_adaptation(self) -> None:
        model = self.build().eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        prediction = create_adapter("eftnet", model, rounds=2)(random_episode(65, shots=2))
        assert prediction.logits.isfinite().all()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_mixtures_need_components(self) -> None:
        none = 0 if self.method == "pmm" else ()
        with pytest.raises(ValueError, match=r"'components' of r?pmm must be"):
            self.build(components=none)

    @pytest.mark.parametrize("part", ["p_match", "p_conv"])
    def test_a_part_can_be_switched_off(self, part: str) -> None:
        """The rest still learns from its supports, gives something else, and has no weights for the part."""
        whole, rest = self.build(), self.build(**{part: False})
        assert self.weights_of(part, rest) < self.weights_of(part, whole)
        assert not (part == "p_match" and self.weights_of(part, rest))
        episode = random_episode(65)
        turned = Episode(**{**vars(episode), "support_mask": (episode.support_mask != 1).long()})
        with torch.no_grad():
            with_part = whole.eval()(episode).logits
            without, parts = rest.eval()(episode).logits, rest(episode).parts
            assert not torch.equal(without, with_part)
            assert not torch.equal(without, rest(turned).logits)
        assert ("background" in parts, "posterior0" in parts) == (part == "p_match",) * 2
        sum(rest.losses(rest.train()(episode), episode).values()).backward()
        groups = rest.param_groups()
        assert all(p.grad is not None for group in groups.values() for p in group)
        create_optimizer(groups, lr=1.0, rules=rest.meta.learning.group_rules)
        assert create_adapter("eftnet", rest, rounds=1)(episode).logits.isfinite().all()

    def weights_of(self, part: str, model: FewShotModel) -> int:
        """Return the number of weights of P-Match, or of what reads P-Conv."""
        names = {"p_match": "comparison.", "p_conv": "match_maps." if self.method == "rpmm" else "refine."}
        return sum(p.numel() for name, p in model.meta.named_parameters() if name.startswith(names[part]))

    def test_one_part_must_be_left(self) -> None:
        with pytest.raises(ValueError, match="p_match and p_conv are both off"):
            self.build(p_match=False, p_conv=False)

    def test_vgg(self) -> None:
        torch.manual_seed(0)
        model = create_model(
            self.method, backbone="vgg16", image_size=65, channels=16, backbone_options={"width": 8}
        ).train()
        episode = random_episode(65)
        sum(model.losses(model(episode), episode).values()).backward()
        assert all(p.grad is not None for group in model.param_groups().values() for p in group)


class TestPMM(MixtureTester):
    method = "pmm"

    def test_posterior_is_the_history(self) -> None:
        model = self.build().eval()
        seen = []
        hook = model.meta.refine.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
        with torch.no_grad():
            prediction = model(random_episode(65))
        hook.remove()
        assert len(seen) == 1
        assert torch.equal(seen[0], prediction.parts["posterior0"])
        torch.testing.assert_close(seen[0].sum(1), torch.ones(2, 9, 9))


class TestRPMM(MixtureTester):
    method = "rpmm"

    def test_every_stage_has_a_loss(self) -> None:
        model = self.build().train()
        episode = random_episode(65)
        prediction = model(episode)
        assert set(model.losses(prediction, episode)) == {"stage0", "stage1", "main"}
        assert prediction.parts["object"].shape[1] == prediction.parts["background"].shape[1] == 1 + 3 + 6

    def test_two_ways_are_trained_each_on_its_own_label(self) -> None:
        model = self.build().train()
        episode = random_episode(65, ways=2)
        assert all(loss.isfinite() for loss in model.losses(model(episode), episode).values())

    def test_calibrated_stages_choose_the_same_class(self) -> None:
        episode = random_episode(65, shots=2)
        with torch.no_grad():
            raw, mean = (self.build(calibrated=c).eval()(episode) for c in (False, True))
        stages = sum(raw.parts[f"stage{n}"].softmax(1) for n in range(3))
        meta = self.build(calibrated=True).eval().meta
        torch.testing.assert_close(meta._joined([stages / 3] * 3).softmax(1), stages / 3)
        same = raw.logits.argmax(1) == mean.logits.argmax(1)
        assert float(same.float().mean()) > 0.99

    def test_one_stage_alone(self) -> None:
        model = self.build(components=[2]).train()
        episode = random_episode(65)
        assert set(model.losses(model(episode), episode)) == {"main"}


def test_mixtures_start_from_numpy_s_frozen_stream() -> None:
    drawn = torch.tensor([[1.78862847, 0.43650985, 0.09649747], [-1.8634927, -0.2773882, -0.35475898]])
    start = PrototypeMixture(2, (3,)).start(0)
    torch.testing.assert_close(start, nn.functional.normalize(drawn, dim=0), atol=1e-5, rtol=1e-5)


def test_mixture_finds_the_directions_that_are_there() -> None:
    directions = nn.functional.normalize(torch.randn(3, 32), dim=1)
    number = torch.randint(0, 3, (1, 200))
    vectors = (directions[number] + 0.02 * torch.randn(1, 200, 32)).transpose(1, 2)
    ((found,),) = PrototypeMixture(32, (3,), concentration=60.0)(vectors)
    nearest = (found[0] @ directions.T).amax(0)
    assert float(nearest.min()) > 0.95


def test_one_component_is_the_mean_direction_whatever_the_start() -> None:
    vectors = torch.randn(2, 16, 50)
    ((fixed,),), ((drawn,),) = (PrototypeMixture(16, (1,), redraw=r)(vectors) for r in (False, True))
    mean = nn.functional.normalize(vectors.mean(2), dim=1)[:, None]
    torch.testing.assert_close(fixed, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(drawn, mean, atol=1e-5, rtol=1e-4)


def test_nothing_to_fit_gives_no_direction_and_an_even_posterior() -> None:
    empty = torch.zeros(1, 16, 4, 4)
    (inside,), (outside,) = PrototypeMixture(16, (3,))(empty, empty)
    assert torch.equal(inside, torch.zeros(1, 3, 16))
    posterior = object_posterior(torch.randn(1, 16, 4, 4), inside, outside)
    torch.testing.assert_close(posterior, torch.full((1, 2, 4, 4), 0.5))


def test_starts_are_no_part_of_a_checkpoint() -> None:
    assert not PrototypeMixture(16, (1, 3)).state_dict()


@pytest.mark.parametrize(
    ("method", "backbone"), [("pmm", "resnet50"), ("pmm", "vgg16"), ("rpmm", "resnet50")]
)
def test_published_file_is_read_and_recognised(method: str, backbone: str) -> None:
    model = create_model(method, backbone=backbone)
    published = to_published(model, model.state_dict())
    stem = "model_backbone.cls.0.weight" if backbone == "vgg16" else "model_res.layer3.5.bn3.bias"
    assert {stem, "layer5.1.running_var", "layer56.0.bias", "layer6.layer6_0.0.bias"} <= set(published)
    load_published(model, {"state_dict": published})
    found = recognise(published)
    assert (found.name, found.backbone, found.base_classes) == (method, backbone, None)
