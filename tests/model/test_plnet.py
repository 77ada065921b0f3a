"""PL: what its description pins down, its own switches, and what every meta-learner must do."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fewseg.engine.training.step import training_step
from fewseg.model import create_adapter, create_model
from fewseg.model.checkpoint.published import load_published, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode
from fewseg.model.fewshot import FewShotModel
from fewseg.model.meta.plnet.pair_embedding import PairEmbedding, closeness
from tests.model.tester import MetaLearnerTester, random_episode

SWITCHES = [
    {},
    {"mask_mode": "early"},
    {"mask_mode": "channel"},
    {"segment_head": "joint"},
    {"background_prototype": False},
    {"distance": "cosine"},
    {"signed_prototypes": False, "activate_sum": False, "fusion_block": True},
]


def parameters(model: FewShotModel) -> dict[str, list[Tensor]]:
    """Copy the parameters of both parts."""
    parts = {"learner": model.meta.learner, "backbone": model.backbone, "head": model.meta.head}
    return {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}


def changed(before: dict[str, list[Tensor]], after: dict[str, list[Tensor]]) -> set[str]:
    return {
        name
        for name in before
        if any(not torch.equal(b, a) for b, a in zip(before[name], after[name], strict=True))
    }


def coloured_episode(ways: int, shots: int = 1) -> Episode:
    """Draw an episode whose ways are told by their colour."""
    episode = random_episode(65, batch=2, ways=ways, shots=shots)
    query, support = 0.1 * episode.query, 0.1 * episode.support
    for way in range(ways):
        colour = torch.eye(3)[way].view(3, 1, 1) * 3
        query += colour * (episode.query_mask == way + 1)[:, None]
        support[:, way] += colour * (episode.support_mask[:, way] == 1)[:, :, None]
    return replace(episode, query=query, support=support)


class TestPLNet(MetaLearnerTester):
    method = "plnet"
    options = {"channels": 16, "min_positions": 1.0}
    any_shot = True

    @pytest.mark.parametrize("ways", [1, 2])
    @pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(map(str, s)) or "default")
    def test_switches(self, ways: int, switches: dict[str, object]) -> None:
        model = self.build(ways=ways, **switches)
        episode = random_episode(65, ways=ways, shots=2)
        losses = model.train().losses(model(episode), episode)
        assert list(losses) == ["main", "classification"]
        sum(losses.values()).backward()
        # one way without a background is nothing to tell apart
        assert (losses["classification"].item() == 0) == (ways == 1 and "background_prototype" in switches)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        prediction = model.eval()(episode)
        assert prediction.logits.shape == (2, 1 + ways, 65, 65)
        torch.testing.assert_close(prediction.parts["fusion_weights"].sum(1), torch.ones(2))

    @pytest.mark.parametrize("switches", [{}, {"mask_mode": "early"}, {"joint_seg_grad": True}])
    def test_every_loss_reaches_its_own_part(self, switches: dict[str, object]) -> None:
        model = self.build(**switches).train()
        episode = random_episode(65)
        reached = {}
        for name, loss in model.losses(model(episode), episode).items():
            model.zero_grad(set_to_none=True)
            loss.backward(retain_graph=True)
            names = {
                n.removeprefix("meta.").split(".")[0]
                for n, p in model.named_parameters()
                if p.grad is not None
            }
            reached[name] = names
        assert reached["classification"] == {"learner"}
        segmentor = {"backbone", "head"}
        assert reached["main"] == (segmentor | {"learner"} if "joint_seg_grad" in switches else segmentor)

    def test_turns_change_their_own_part_only(self) -> None:
        model = self.build().train()
        episode = random_episode(65)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
        training_step(model, episode, optimizer)  # momentum must move nothing either
        for turn, touched in ((("classification",), {"learner"}), (("main",), {"backbone", "head"})):
            before = parameters(model)
            model.meta.learning = replace(model.meta.learning, alternating=(turn,))
            assert list(training_step(model, episode, optimizer)) == list(turn)
            assert changed(before, parameters(model)) == touched

    def test_segmentor_sees_what_the_learner_has_just_learnt(self) -> None:
        model = self.build().train()
        episode = random_episode(65)
        untaught = model.losses(model(episode), episode)["main"].item()
        values = training_step(model, episode, torch.optim.SGD(model.parameters(), 1.0))
        assert list(values) == ["classification", "main"]
        assert values["main"] != untaught

    def test_copies_of_a_support_are_one_shot(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        copies = replace(
            episode,
            support=episode.support.repeat(1, 1, 5, 1, 1, 1),
            support_mask=episode.support_mask.repeat(1, 1, 5, 1, 1),
        )
        with torch.no_grad():
            torch.testing.assert_close(model(copies).logits, model(episode).logits)

    def test_permuted_ways_permute_the_answer(self) -> None:
        episode = random_episode(65, ways=3)
        order = torch.tensor([2, 0, 1])
        permuted = replace(
            episode,
            support=episode.support[:, order],
            support_mask=episode.support_mask[:, order],
            query_mask=None,
        )
        channels = [0, 3, 1, 2]
        for head in ("shared", "joint"):
            model = self.build(segment_head=head, ways=3).eval()
            with torch.no_grad():
                expected, found = model(episode).logits[:, channels], model(permuted).logits
            assert torch.allclose(found, expected, atol=1e-6) == (head == "shared")

    def test_permutation_in_training(self) -> None:
        episode = random_episode(65, ways=3)
        model = self.build(segment_head="joint", ways=3, permutation=True)
        plain = self.build(segment_head="joint", ways=3, permutation=False)
        seen = set()
        with torch.no_grad():
            as_given = plain.train()(episode).logits
            assert torch.equal(model.eval()(episode).logits, as_given)
            model.train()
            for seed in range(12):
                torch.manual_seed(seed)
                order = 1 + torch.randperm(3)
                torch.manual_seed(seed)
                maps = model(episode).parts["map_logits"]
                query = model.encode_query(episode.query)
                prototype = plain(episode).parts["prototype"]
                full = torch.cat([torch.zeros(1, dtype=torch.int64), order])
                expected = plain.meta.head(query["feature"], prototype[:, full])
                assert torch.equal(maps[:, full], expected)
                seen.add(tuple(order.tolist()))
        assert len(seen) > 3

    def test_joint_head_names_its_ways(self) -> None:
        model = self.build(segment_head="joint", ways=1).eval()
        with pytest.raises(ValueError, match=r"joint head for 2 maps cannot make 3.*set option 'ways'"):
            model(random_episode(65, ways=2))
        with pytest.raises(ValueError, match="'ways' of plnet must be at least 1, got 0"):
            self.build(ways=0)

    def test_query_without_objects_and_query_that_is_void(self) -> None:
        episode = random_episode(65, ways=2)
        empty = replace(episode, query_mask=torch.zeros_like(episode.query_mask))
        void = replace(episode, query_mask=torch.full_like(episode.query_mask, 255))
        model = self.build(background_prototype=False).train()
        losses = model.losses(model(empty), empty)
        assert losses["classification"].item() == 0
        assert losses["main"].isfinite()
        assert model.losses(model(void), void)["classification"].item() == 0

    def test_ways_that_hardly_show_are_left_out(self) -> None:
        episode = random_episode(65)
        size = float((episode.query_mask == 1).sum((1, 2)).max()) / 64  # a position stands for 64 pixels
        losses = {}
        for least in (1.0, size / 2, 2 * size):
            model = self.build(min_positions=least, background_prototype=True).train()
            losses[least] = model.losses(model(episode), episode)["classification"].item()
        first, second, background_only = losses.values()
        assert first == second != background_only

    def test_separated_prototypes_cost_nothing(self) -> None:
        model = self.build().train()
        episode = random_episode(65, batch=1, ways=2)
        prototype = 100 * torch.eye(16)[:3].unsqueeze(0)
        masks = torch.stack([episode.query_mask == way for way in range(3)], 1).float()
        looked = torch.einsum("bphw,bpc->bchw", masks, prototype)
        parts = {"image_feature": looked, "prototype": prototype, "map_logits": looked[:, :3]}
        assert model.meta._classification(parts, episode.query_mask).item() < 1e-6

    def test_learns_a_few_episodes(self) -> None:
        model = self.build().train()
        episode = coloured_episode(ways=2)
        rules = model.meta.learning.group_rules
        groups = [
            {"params": group, "lr": 3e-3 * (rules[name].rate if name in rules else 1)}
            for name, group in model.param_groups().items()
        ]
        optimizer = torch.optim.Adam(groups)
        for _ in range(40):
            values = training_step(model, episode, optimizer)
        assert values["main"] < 0.5 * math.log(3)
        assert values["classification"] < 0.1

    def test_learner_alone(self) -> None:
        model = self.build(use_segmentor=False).train()
        assert list(model.param_groups()) == ["learner"]
        episode = coloured_episode(ways=2)
        before = [p.clone() for p in model.backbone.parameters()]
        learner = {name: p.clone() for name, p in model.meta.learner.named_parameters()}
        losses = model.losses(model(episode), episode)
        assert not losses["main"].requires_grad  # watched, not minimised
        training_step(model, episode, torch.optim.SGD(model.param_groups()["learner"], 0.01))
        found = model.losses(model(episode), episode)["classification"]
        assert found < losses["classification"]
        assert all(torch.equal(b, p) for b, p in zip(before, model.backbone.parameters(), strict=True))
        assert not any(  # an offset of all embeddings is no distance, so biases may stay
            torch.equal(learner[name], p) for name, p in model.meta.learner.named_parameters() if p.ndim > 1
        )

    def test_nearest_prototype_per_pixel(self) -> None:
        model = self.build(use_segmentor=False).eval()
        episode = random_episode(65, ways=2)
        with torch.no_grad():
            low = model.meta.segment(model.encode_query(episode.query), dict(model(episode).parts)).logits
            pixels = model.encode_query(episode.query)["image_feature"].flatten(2).mT
            prototype = model(episode).parts["prototype"]
        nearest = torch.cdist(pixels, prototype).argmin(2)
        assert torch.equal(low.flatten(2).argmax(1), nearest)

    @pytest.mark.parametrize("switches", [{"mask_mode": "early"}, {"background_prototype": False}])
    def test_learner_alone_needs_features_and_background(self, switches: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="use_segmentor: False takes the nearest prototype"):
            self.build(use_segmentor=False, **switches)

    def test_background_without_prototype_is_an_even_chance(self) -> None:
        model = self.build(background_prototype=False).eval()
        with torch.no_grad():
            logits = model(random_episode(65)).logits
            torch.testing.assert_close(logits[:, 0], torch.full_like(logits[:, 0], math.log(0.5 + 1e-6)))

    def test_adaptation_leaves_the_learner_and_restores_the_rest(self) -> None:
        for switches in ({}, {"use_segmentor": False}, {"mask_mode": "early"}):
            model = self.build(shot=2, **switches).eval()
            before = {name: value.clone() for name, value in model.state_dict().items()}
            adapter = create_adapter("eftnet", model, rounds=2)
            learner = {id(p) for p in model.meta.learner.parameters()}
            assert not learner & {id(p) for p in adapter.tuned_parameters()}
            assert adapter(random_episode(65, batch=1, shots=2)).logits.isfinite().all()
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_compositions_that_make_no_sense_are_refused(self) -> None:
        with pytest.raises(ValueError, match="plnet segments all ways at once"):
            self.build(base="pspnet", ensemble="bam")
        with pytest.raises(ValueError, match="reads no further than layer3"):
            self.build(base="pspnet")


def test_learner_starts_from_the_backbone_s_weights() -> None:
    for mask_mode in ("late", "channel"):
        torch.manual_seed(0)
        model = create_model("plnet", backbone="vgg16", mask_mode=mask_mode)
        with torch.no_grad():
            for parameter in model.backbone.parameters():
                parameter.normal_(0, 0.05)
        model.meta.initialise(model.backbone, {})
        own, theirs = model.meta.learner.backbone.state_dict(), model.backbone.state_dict()
        for name, value in theirs.items():
            assert torch.equal(own[name][:, :3] if name == "layer0.0.weight" else own[name], value)
        assert own["layer0.0.weight"][:, 3:].abs().sum() == 0


@pytest.mark.parametrize("mask_mode", ["late", "early", "channel"])
def test_embedding_is_that_of_the_formula(mask_mode: str) -> None:
    model = create_model("plnet", backbone="resnet18", backbone_options={"width": 8}, channels=12).eval()
    learner = PairEmbedding(model.backbone, 12, mask_mode).eval()
    image, masks = torch.randn(2, 3, 65, 65), torch.rand(2, 3, 65, 65)
    with torch.no_grad():
        found = learner(learner.image_features(image), masks)
        assert found.shape == (2, 3, 12)
        mask = masks[:, 1:2]
        if mask_mode == "late":
            feature = learner.project(learner.backbone(image, ("layer3",))["layer3"])
            weight = torch.nn.functional.interpolate(
                mask, feature.shape[-2:], mode="bilinear", align_corners=True
            )
            expected = (feature * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1e-5)
        else:
            pair = image * mask if mask_mode == "early" else torch.cat([image, mask], 1)
            expected = learner.project(learner.backbone(pair, ("layer3",))["layer3"]).mean((2, 3))
    torch.testing.assert_close(found[:, 1], expected, atol=1e-5, rtol=1e-4)


def test_closeness() -> None:
    vectors, prototypes = torch.tensor([3.0, 4.0]), torch.tensor([[3.0, 4.0], [0.0, 0.0], [-4.0, 3.0]])
    assert closeness(vectors, prototypes, "euclidean").tolist() == [0.0, -12.5, -25.0]
    torch.testing.assert_close(closeness(vectors, prototypes, "cosine"), torch.tensor([20.0, 0.0, 0.0]))


def test_layout_of_its_files() -> None:
    model = create_model("plnet", backbone="vgg16")
    state = to_published(model, model.state_dict())
    assert {name.rpartition(".")[0] for name in state if "backbone" not in name} == {
        "segmentor.head.classifier"
    }
    assert {"learner.backbone.layer4.4.weight", "segmentor.backbone.layer4.4.weight"} <= set(state)
    load_published(model, state)
    found = recognise(state)
    assert (found.name, found.backbone) == ("plnet", "vgg16")
    joint = create_model("plnet", backbone="vgg16", segment_head="joint", ways=2)
    names = set(to_published(joint, joint.state_dict()))
    assert {"segmentor.head.reduce.weight", "segmentor.head.classifier.weight"} <= names
