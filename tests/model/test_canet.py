"""CANet's own switches, its pieces one by one, and what every meta-learner must do."""

import pytest
import torch
from torch import nn

from fewseg.model import create_adapter, create_base_learner, create_model
from fewseg.model.checkpoint.published import load_published, load_strict, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.resize import resize
from fewseg.model.layer.tiled import TiledConv
from fewseg.model.meta.canet.history import PredictionMemory
from tests.model.tester import MetaLearnerTester, random_episode

FUSIONS = ("attention", "feature_average", "mask_average", "mask_or")


def numbered(episode: Episode, *numbers: int) -> Episode:
    """Give the queries their numbers in a training list."""
    return Episode(**{**vars(episode), "query_number": torch.tensor(numbers)})


def single(episode: Episode, shot: int) -> Episode:
    """Leave one support of each."""
    kept = slice(shot, shot + 1)
    return Episode(
        **{
            **vars(episode),
            "support": episode.support[:, :, kept],
            "support_mask": episode.support_mask[:, :, kept],
        }
    )


def still(model: FewShotModel) -> FewShotModel:
    """Switch dropout off."""
    for module in model.meta.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return model


class TestCANet(MetaLearnerTester):
    method = "canet"
    options = {"channels": 16}
    any_shot = True

    def build(self, **changes: object) -> FewShotModel:
        """Draw larger weights than the method does: with its own, hardly anything reaches the end."""
        model = super().build(**changes)
        for module in model.meta.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        return model

    def test_supports_alike_are_one_support_under_every_fusion(self) -> None:
        episode = random_episode(65)
        repeated = Episode(
            **{
                **vars(episode),
                "support": episode.support.repeat(1, 1, 3, 1, 1, 1),
                "support_mask": episode.support_mask.repeat(1, 1, 3, 1, 1),
            }
        )
        for fusion in FUSIONS:
            model = still(self.build(fusion=fusion, shot=3)).eval()
            with torch.no_grad():
                once, often = model(episode).logits, model(repeated).logits
            torch.testing.assert_close(often.softmax(1), once.softmax(1))

    def test_masks_are_joined_at_the_size_of_the_image(self) -> None:
        episode = random_episode(65, shots=3)
        joined = {}
        for fusion in ("mask_average", "mask_or"):
            model = still(self.build(fusion=fusion)).eval()
            with torch.no_grad():
                joined[fusion] = model(episode).logits
                shots = torch.stack([model(single(episode, shot)).logits for shot in range(3)])
        average = shots.softmax(2).mean(0)
        torch.testing.assert_close(joined["mask_average"].softmax(1), average)
        union = (shots.argmax(2) == 1).any(0)
        assert torch.equal(joined["mask_or"].argmax(1) == 1, union)
        assert not torch.equal(average.argmax(1) == 1, union)

    def test_attention_weighs_the_supports(self) -> None:
        model = still(self.build(shot=3)).eval()
        episode = random_episode(65, shots=3)
        with torch.no_grad():
            query = model.encode_query(episode.query)
            prototype = 10 * torch.randn(2, 3, 16)
            weights = model.meta.attention(query["attended"], prototype)
            assert self.build(shot=1).meta.attention is None
        torch.testing.assert_close(weights.sum(1), torch.ones(2))
        assert float((weights - 1 / 3).abs().max()) > 1e-3

    def test_weights_of_one_shot_average_several_supports(self) -> None:
        weights, episode = self.build().state_dict(), random_episode(65, shots=3)
        several = self.build(shot=3)
        with pytest.warns(UserWarning, match="no fitting attention.*fusion feature_average"):
            load_strict(several, weights)
        plain = self.build(shot=3, fusion="feature_average")
        load_strict(plain, weights)
        with torch.no_grad():
            assert torch.equal(several.eval()(episode).logits, plain.eval()(episode).logits)
        trained = self.build(shot=3)
        load_strict(trained, trained.state_dict())
        assert trained.meta.attention is not None

    def test_passes_refine_the_first_one(self) -> None:
        episode = random_episode(65)
        with torch.no_grad():
            long = still(self.build(passes=3)).eval()(episode)
            short = still(self.build(passes=1)).eval()(episode)
        assert [name for name in long.parts if name.startswith("pass")] == ["pass0", "pass1", "pass2"]
        torch.testing.assert_close(long.parts["pass0"], short.parts["pass0"])
        assert not torch.allclose(long.parts["pass1"], long.parts["pass0"])
        torch.testing.assert_close(resize(long.parts["pass2"], (65, 65)), long.logits)

    def test_history_is_what_was_said_of_the_same_query_and_class(self) -> None:
        model = still(self.build(history_drop=0.0)).train()
        episode = numbered(random_episode(65), 4, 9)
        first = model(episode)
        assert set(model.meta.memory.predictions) == {(4, 1), (9, 2)}
        recalled = torch.stack([model.meta.memory.recall(key, (9, 9)) for key in ((4, 1), (9, 2))])
        torch.testing.assert_close(recalled, first.parts["pass0"].softmax(1), atol=1e-3, rtol=1e-3)
        again = model(episode)
        assert not torch.allclose(again.logits, first.logits)
        unknown = model(numbered(episode, 5, 6))
        torch.testing.assert_close(unknown.logits, first.logits)

    def test_dropped_history_is_no_history(self) -> None:
        model = still(self.build(history_drop=1.0)).train()
        episode = numbered(random_episode(65), 4, 9)
        torch.testing.assert_close(model(episode).logits, model(episode).logits)

    def test_history_is_dropped_at_its_share(self) -> None:
        model = still(self.build()).train()
        compared = torch.zeros(2000, 1, 16, 3, 3)
        samples = [(n, 1) for n in range(2000)]
        model.meta.memory.remember(samples, torch.zeros(2000, 2, 3, 3))
        history = model.meta._training_history(compared, samples)
        assert float((history.amax((1, 2, 3)) > 0).float().mean()) == pytest.approx(0.3, abs=0.04)

    def test_fresh_history_is_the_first_pass(self) -> None:
        episode = random_episode(65)
        trained = still(self.build(history="fresh", history_drop=0.0)).train()(episode)
        tested = still(self.build(passes=2)).eval()(episode)
        torch.testing.assert_close(trained.parts["pass0"], tested.parts["pass1"])

    @pytest.mark.parametrize("history", ["remembered", "fresh"])
    def test_reduced_precision(self, history: str) -> None:
        model = self.build(history=history, history_drop=0.0, shot=2).train()
        episode = numbered(random_episode(65, shots=2), 4, 9)
        with torch.autocast("cpu", torch.bfloat16):
            first, second = model(episode), model(episode)
        assert first.logits.isfinite().all()
        assert second.logits.isfinite().all()

    def test_memory_survives_a_snapshot(self) -> None:
        model, other = self.build().train(), self.build().train()
        model(numbered(random_episode(65), 4, 9))
        other.meta.memory.restore(model.meta.memory.state())
        assert all(
            torch.equal(other.meta.memory.predictions[key], map_)
            for key, map_ in model.meta.memory.predictions.items()
        )
        assert len(other.meta.memory) == 2
        assert not [name for name in model.state_dict() if "memory" in name]

    def test_batch_statistics_drift_only_where_published_behaviour_is_asked_for(self) -> None:
        model = self.build(fix_bn=False).train()
        model(random_episode(65))
        counted = {int(v) for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
        assert counted == {2}  # queries, then supports

    def test_support_without_object_at_feature_resolution(self) -> None:
        episode = random_episode(65)
        speck = torch.zeros_like(episode.support_mask)
        speck[..., 3, 3] = 1
        model = still(self.build()).eval()
        with torch.no_grad():
            support = model.encode_support(episode.support[:, 0, 0], speck[:, 0, 0])
            tiny = model(Episode(**{**vars(episode), "support_mask": speck})).logits
        assert torch.equal(support["prototype"], torch.zeros(2, 16))
        assert tiny.isfinite().all()

    def test_with_base_learner_and_ensemble(self) -> None:
        model = self.build(
            base="pspnet", ensemble="bam", backbone_options={"width": 8, "last_stage": "layer4"}
        ).train()
        episode = random_episode(65)
        losses = model.losses(model(episode), episode)
        assert set(losses) == {"main", "meta", "base"}
        (losses["main"] + losses["meta"]).backward()
        assert all(p.grad is not None for group in model.param_groups().values() for p in group)

    def test_base_learner_needs_the_last_stage(self) -> None:
        with pytest.raises(ValueError, match="reads no further than layer3, but the base learner needs"):
            self.build(base="pspnet")

    def test_starts_from_a_base_learner_of_the_same_build(self) -> None:
        model = self.build()
        options = {"width": 8, "stem": "standard"}
        learner = create_base_learner("pspnet", backbone="resnet18", classes=16, backbone_options=options)
        model.adopt(learner)
        theirs = learner.backbone.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in model.backbone.state_dict().items())
        other = create_base_learner("pspnet", backbone="resnet18", classes=16, backbone_options={"width": 8})
        with pytest.raises(ValueError, match=r"built otherwise .*layer0.*same backbone_options"):
            model.adopt(other)

    @pytest.mark.parametrize("shots", [1, 3])
    def test_adaptation(self, shots: int) -> None:
        model = still(self.build(shot=shots)).eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        prediction = create_adapter("eftnet", model, rounds=2)(random_episode(65, shots=shots))
        assert prediction.logits.isfinite().all()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    @pytest.mark.parametrize("blocks", [(2,), (3,), (4,), (2, 4), (2, 3, 4)])
    def test_the_features_of_other_blocks(self, blocks: tuple[int, ...]) -> None:
        deep = {**self.backbone_options, "last_stage": "layer4"}
        whole, part = self.build(), self.build(blocks=blocks, backbone_options=deep)
        assert part.meta.inputs.query == tuple(f"layer{n}" for n in blocks)
        assert part.meta.reduce[0].in_channels == sum(8 << (n - 1) for n in blocks)
        episode = random_episode(65)
        with torch.no_grad():
            assert not torch.equal(part.eval()(episode).logits, whole.eval()(episode).logits)
        part.losses(part.train()(episode), episode)["main"].backward()
        assert all(p.grad is not None for group in part.param_groups().values() for p in group)

    def test_one_pass_is_no_iterative_optimisation(self) -> None:
        episode = random_episode(65)
        with torch.no_grad():
            once, whole = (self.build(passes=passes).eval()(episode) for passes in (1, 5))
        assert "pass1" not in once.parts
        assert torch.equal(once.parts["pass0"], whole.parts["pass0"])
        assert not torch.equal(once.logits, whole.logits)

    def test_the_fourth_block_must_be_there(self) -> None:
        with pytest.raises(ValueError, match=r"further than layer3.*last_stage layer4"):
            self.build(blocks=(3, 4))

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("passes", 0, "must be at least 1, got 0"),
            ("history_drop", 1.5, "must be at most 1, got 1.5"),
            ("fusion", "mean", "must be 'attention' or 'feature_average'"),
            ("blocks", [3, 2], "must be different and ascending"),
        ],
    )
    def test_impossible_options_are_refused(self, option: str, value: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.build(**{option: value})


@pytest.mark.parametrize("dilation", [1, 2])
def test_tiled_convolution_is_the_plain_one(dilation: int) -> None:
    layer = TiledConv(3, 4, 5, dilation).double()
    maps, vectors = torch.randn(2, 3, 6, 4).double(), torch.randn(2, 4).double().requires_grad_()
    plain = nn.Conv2d.forward(layer, torch.cat([maps, vectors[:, :, None, None].expand(-1, -1, 6, 4)], 1))
    ours = layer.over_maps(maps) + layer.over_vectors(vectors, (6, 4))
    torch.testing.assert_close(ours, plain)
    weights = torch.randn_like(plain)
    for tensor in (vectors, layer.weight, layer.bias):
        given, wanted = (
            torch.autograd.grad((x * weights).sum(), tensor, retain_graph=True) for x in (ours, plain)
        )
        torch.testing.assert_close(given, wanted)


def test_memory_changes_its_grid() -> None:
    memory = PredictionMemory()
    memory.remember([(7, 3)], torch.tensor([0.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4))
    recalled = memory.recall((7, 3), (6, 5))
    assert recalled.shape == (2, 6, 5)
    torch.testing.assert_close(recalled.sum(0), torch.ones(6, 5))
    assert float(recalled[1].mean()) == pytest.approx(0.8808, abs=1e-3)
    assert torch.equal(memory.recall((7, 4), (6, 5)), torch.zeros(2, 6, 5))


def test_published_file_is_read_and_recognised() -> None:
    model = create_model("canet", backbone="resnet50")
    published = {f"module.{k}": v for k, v in to_published(model, model.state_dict()).items()}
    names = {"conv1.weight", "layer3.5.bn3.bias", "layer55.0.weight", "layer6_4.0.bias", "residule3.3.bias"}
    assert {f"module.{name}" for name in names} <= set(published)
    load_published(model, published)
    found = recognise(published)
    assert (found.name, found.backbone, found.base_classes) == ("canet", "resnet50", None)
