"""What every meta-learner must be able to do; a method's own test class names it and adds its specials."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fewseg.engine.reports.figures.maps import maps_of
from fewseg.model import create_model
from fewseg.model.checkpoint.published import load_published, load_strict, to_published
from fewseg.model.contract import BatchNorm, Episode
from fewseg.model.create import METHODS
from fewseg.model.encoding import group_encoding, stack_encodings
from fewseg.model.fewshot import FewShotModel
from fewseg.model.folding import fold_for_testing


def random_episode(
    side: int, *, batch: int = 2, ways: int = 1, shots: int = 1, classes: int = 15, seed: int = 0
) -> Episode:
    """Draw an episode of smooth random images whose object is a rectangle."""
    generator = torch.Generator().manual_seed(seed)

    def images(*axes: int) -> Tensor:
        coarse = torch.randn(int(torch.tensor(axes).prod()), 3, 9, 9, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
        return fine.reshape(*axes, 3, side, side)

    def masks(*axes: int, values: int = 1) -> Tensor:
        mask = torch.zeros(*axes, side, side, dtype=torch.int64)
        for number, item in enumerate(mask.view(-1, side, side)):
            top, left = torch.randint(4, side // 3, (2,), generator=generator).tolist()
            item[top : top + side // 2, left : left + side // 2] = 1 + number % values
            item[-2:] = 255
        return mask

    return Episode(
        query=images(batch),
        support=images(batch, ways, shots),
        support_mask=masks(batch, ways, shots),
        class_id=torch.arange(1, batch * ways + 1).view(batch, ways),
        class_index=torch.arange(batch * ways).view(batch, ways),
        query_mask=masks(batch, values=ways),
        base_label=masks(batch, values=classes),
    )


def decode_encoded(model: FewShotModel, episode: Episode) -> Tensor:
    """Segment the queries of a one-way episode one by one, every image encoded by itself -> [B,2,H,W]."""
    singles = []
    for item in range(len(episode.query)):
        query = model.encode_query(episode.query[item : item + 1])
        supports = [
            model.encode_support(
                episode.support[item, :, k], episode.support_mask[item, :, k], episode.class_id[item]
            )
            for k in range(episode.shots)
        ]
        support = group_encoding(stack_encodings(supports), 1, 1, episode.shots)
        singles.append(model.decode(query, support, tuple(episode.query.shape[-2:])).logits)
    return torch.cat(singles)


def draw_statistics(network: nn.Module) -> None:
    """Give every BatchNorm of ``network`` random statistics, scales and offsets."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                tensor.uniform_(0.5, 1.5, generator=generator)


class MetaLearnerTester:
    """Inherit and set ``method``; ``build`` may be given further options by ``options``."""

    method: str
    options: dict[str, object] = {}
    backbone = "resnet18"
    backbone_options: dict[str, object] = {"width": 8}
    sides = (65, 81)
    any_shot = False
    """Whether a model built for one shot also runs with several."""

    def build(self, *, shot: int = 1, side: int = 65, **changes: object) -> FewShotModel:
        torch.manual_seed(0)
        return create_model(
            self.method,
            backbone=self.backbone,
            shot=shot,
            image_size=side,
            **{"backbone_options": self.backbone_options, **self.options, **changes},
        )

    @pytest.mark.parametrize("shot", [1, 5])
    def test_forward(self, shot: int) -> None:
        for side in self.sides:
            model = self.build(shot=shot, side=side).eval()
            with torch.no_grad():
                logits = model(random_episode(side, shots=shot)).logits
            assert logits.shape == (2, 2, side, side)
            assert logits.isfinite().all()

    @pytest.mark.parametrize("shot", [1, 5])
    def test_backward_reaches_every_trained_parameter_and_no_other(self, shot: int) -> None:
        model = self.build(shot=shot).train()
        episode = random_episode(65, shots=shot)
        losses = model.losses(model(episode), episode, torch.Generator().manual_seed(0))
        assert "main" in losses
        sum(losses.values()).backward()
        trained = {id(p) for group in model.param_groups().values() for p in group}
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in trained), name
            assert parameter.grad is None or parameter.grad.isfinite().all(), name

    def test_frozen_statistics_stay(self) -> None:
        model = self.build().train()
        frozen = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
        model(random_episode(65))
        moved = [k for k, v in frozen.items() if not torch.equal(v, model.state_dict()[k])]
        assert (
            not moved
            if model.meta.learning.batch_norm is BatchNorm.STORED
            else all(model.meta.learning.backbone or "backbone" in k for k in moved)
        )

    def test_declared_maps_are_parts_of_a_prediction(self) -> None:
        model, episode = self.build().eval(), random_episode(65, batch=1)
        with torch.no_grad():
            prediction = model(episode)
        for entry in model.maps:
            found = maps_of([entry], prediction, lambda part: part[0].numpy())
            assert found, f"{entry.part} is declared as a map, but a prediction lacks it"

    def test_save_and_load(self) -> None:
        model, other = self.build().eval(), self.build().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        episode = random_episode(65)
        with torch.no_grad():
            assert torch.equal(model(episode).logits, other(episode).logits)

    @pytest.mark.parametrize("shot", [1, 5])
    def test_encoding_once_equals_one_by_one(self, shot: int) -> None:
        model = self.build(shot=shot).eval()
        if model.meta.inputs.batch_dependent:
            pytest.skip("its encodings depend on the other images of the batch")
        episode = random_episode(65, shots=shot)
        with torch.no_grad():
            single, whole = decode_encoded(model, episode), model(episode).logits
            torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-4)

    def test_supports_are_encoded_from_features_under_their_masks(self) -> None:
        """A last stage that sees masked features need not be run elsewhere."""
        model, episode = self.build().eval(), random_episode(65)
        support = episode.support[:, 0, 0], episode.support_mask[:, 0, 0]
        with torch.no_grad():
            whole = model.encode_support_features(model.support_features(*support), support[1])
            own = model.encode_support(*support)
        for name, tensor in own.items():
            torch.testing.assert_close(tensor, whole[name], atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("adapted", [False, True])
    def test_folding_changes_rounding_only(self, adapted: bool) -> None:
        """In double precision, in which rounding cannot hide a layer that is folded wrongly."""
        model = self.build().eval().double()
        draw_statistics(model)
        episode = random_episode(65)
        episode = replace(episode, query=episode.query.double(), support=episode.support.double())
        with torch.no_grad():
            plain = model(episode).logits
            fold_for_testing(model, adapted=adapted)
            assert not any(type(m) is nn.BatchNorm2d for m in model.backbone.modules())
            torch.testing.assert_close(model(episode).logits, plain, atol=1e-9, rtol=1e-9)
        with pytest.raises(ValueError, match="folded for testing"):
            model.state_dict()

    def test_encodings_do_not_depend_on_the_number_of_supports(self) -> None:
        one, several = self.build(shot=1).eval(), self.build(shot=5).eval()
        if one.meta.inputs.batch_dependent:
            pytest.skip("its encodings depend on the other images of the batch")
        several.load_state_dict(one.state_dict(), strict=False)
        episode = random_episode(65)
        support = episode.support[0, 0], episode.support_mask[0, 0], episode.class_id[0]
        with torch.no_grad():
            pairs = [
                (one.encode_query(episode.query[:1]), several.encode_query(episode.query[:1])),
                (one.encode_support(*support), several.encode_support(*support)),
            ]
        for first, second in pairs:  # one of them may have entries that the other does not need
            common = first.keys() & second.keys()
            assert common and all(torch.equal(first[name], second[name]) for name in common)

    def test_same_answer_twice(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        with torch.no_grad():
            assert torch.equal(model(episode).logits, model(episode).logits)

    def test_support_mask_matters(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        turned = Episode(**{**vars(episode), "support_mask": (episode.support_mask != 1).long()})
        with torch.no_grad():
            assert not torch.equal(model(episode).logits, model(turned).logits)

    def test_empty_mask_gives_finite_logits(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        empty = Episode(**{**vars(episode), "support_mask": torch.zeros_like(episode.support_mask)})
        with torch.no_grad():
            assert model(empty).logits.isfinite().all()

    def test_two_ways(self) -> None:
        model = self.build().eval()
        with torch.no_grad():
            logits = model(random_episode(65, ways=2)).logits
        assert logits.shape == (2, 3, 65, 65)
        assert logits.isfinite().all()

    def test_learns_from_two_ways(self) -> None:
        model = self.build().train()
        episode = random_episode(65, ways=2)
        loss = model.losses(model(episode), episode, torch.Generator().manual_seed(0))["main"]
        loss.backward()
        assert loss.isfinite()

    def test_other_number_of_shots(self) -> None:
        episode = random_episode(65, shots=3)
        model = self.build(shot=1).eval()
        if self.any_shot:
            with torch.no_grad():
                assert model(episode).logits.isfinite().all()
        else:
            with pytest.raises(ValueError, match="retrain"):
                model(episode)

    def test_adaptation_can_blend_the_guidance(self) -> None:
        """Guidance from the supports and from the query itself has one form, which adaptation relies on."""
        model = self.build(shot=1).eval()
        if model.meta.adaptation is None:
            pytest.skip("test-time adaptation is not for this method")
        episode = random_episode(65)
        classes = episode.class_id[:, 0]
        with torch.no_grad():
            query = model.encode_query(episode.query)
            supports = [
                model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0], classes),
                model.encode_support(episode.query, (episode.query_mask == 1).long(), classes),
            ]
            axes = (2, 1, 1) if model.meta.inputs.multi_way else (2, 1)
            given, own = (model.meta.match(query, group_encoding(support, *axes)) for support in supports)
            blended = {name: 0.8 * given[name] + 0.2 * own[name] for name in model.meta.adaptation.blended}
            alone = model.meta.segment(query, given).logits
            both = model.meta.segment(query, {**given, **blended}).logits
        assert both.isfinite().all()
        assert not torch.allclose(alone, both)

    def test_unknown_option_is_named(self) -> None:
        with pytest.raises(ValueError, match="no option 'tempature'"):
            self.build(tempature=2.0)


class ShotWeightsTester(MetaLearnerTester):
    """Of methods that weigh their supports by a network bound to K (BAM, section 3.4)."""

    def test_fixed_weights_follow_their_supports(self) -> None:
        """Turning the supports around turns the fixed weights, and leaves the legacy ones in rank order."""
        if "kshot_unsort" not in METHODS[self.method].Options.__dataclass_fields__:
            pytest.skip("it knows no order of the supports")
        episode = random_episode(65, shots=5)
        turned = replace(episode, support=episode.support.flip(2), support_mask=episode.support_mask.flip(2))
        for unsort, turns in (("fixed", True), ("legacy", False)):
            model = self.build(shot=5, kshot_unsort=unsort).eval()
            with torch.no_grad():
                model.meta.shot_weights.network[2].weight.mul_(20)
                weights = model(episode).parts["shot_weights"]
                again = model(turned).parts["shot_weights"]
            assert not torch.allclose(weights, weights.flip(1), atol=1e-3)
            torch.testing.assert_close(again, weights.flip(1) if turns else weights, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize(("trained", "used"), [(1, 3), (5, 3)])
    def test_weights_of_another_shot_run_uniformly_with_a_warning(self, trained: int, used: int) -> None:
        weights, episode = self.build(shot=trained).state_dict(), random_episode(65, shots=used)
        model, uniform = self.build(shot=used), self.build(shot=used, shot_weights="uniform")
        with pytest.warns(UserWarning, match=r"no fitting shot_weights.network.*shot_weights uniform"):
            load_strict(model, weights)
        load_strict(uniform, weights)
        with torch.no_grad():
            assert torch.equal(model.eval()(episode).logits, uniform.eval()(episode).logits)

    @pytest.mark.filterwarnings("error")
    def test_weights_of_several_shots_run_with_one(self) -> None:
        model = self.build(shot=1)
        several = self.build(shot=5)
        load_strict(model, several.state_dict(), whole=True)
        load_published(model, to_published(several, several.state_dict()), whole=True)

    def test_training_with_more_supports_names_the_option_that_needs_no_weights_for_them(self) -> None:
        weights, model = self.build(shot=1).state_dict(), self.build(shot=5)
        with pytest.raises(ValueError, match=r"missing.*Method\.options\.shot_weights uniform works without"):
            load_strict(model, weights, whole=True)
        assert model.meta.shot_weights.network is not None

    def test_uniform_weights_take_any_shot_from_a_one_shot_checkpoint(self) -> None:
        model = self.build(shot=3, shot_weights="uniform").eval()
        model.load_state_dict(self.build(shot=1).state_dict())
        with torch.no_grad():
            prediction = model(random_episode(65, shots=3))
        torch.testing.assert_close(prediction.parts["shot_weights"], torch.full((2, 3), 1 / 3))
