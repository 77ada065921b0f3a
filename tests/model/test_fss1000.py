"""The relation network's own switches, and what every meta-learner must do."""

import pytest
import torch

from fewseg.model import create_adapter, create_base_learner, create_model
from fewseg.model.checkpoint.published import load_published, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode
from fewseg.model.input_view import query_input, support_input
from fewseg.model.meta.fss1000.batch_statistics import BatchStatistics
from fewseg.model.pixels import MEAN, STD
from tests.model.tester import MetaLearnerTester, random_episode


class TestFSS1000(MetaLearnerTester):
    method = "fss1000"
    any_shot = True

    def test_running_statistics_make_encodings_independent(self) -> None:
        model = self.build(bn_mode="running").eval()
        assert not model.meta.inputs.batch_dependent
        episode = random_episode(65)
        with torch.no_grad():
            whole = model(episode).logits
            query = model.encode_query(episode.query[:1])
            support = model.encode_support(episode.support[:1, 0, 0], episode.support_mask[:1, 0, 0])
            alone = model.decode(query, {k: v[None, None] for k, v in support.items()}, (65, 65)).logits
        torch.testing.assert_close(alone, whole[:1], atol=1e-5, rtol=1e-4)

    def test_batch_statistics_depend_on_the_batch_and_leave_no_trace(self) -> None:
        model = self.build().eval()
        assert model.meta.inputs.batch_dependent
        before = {name: value.clone() for name, value in model.state_dict().items()}
        episode = random_episode(65)
        first = Episode(**{k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in vars(episode).items()})
        with torch.no_grad():
            assert not torch.allclose(model(first).logits, model(episode).logits[:1], atol=1e-3)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_every_normalisation_follows_the_mode(self) -> None:
        kinds = {type(m) for m in self.build().modules() if isinstance(m, torch.nn.BatchNorm2d)}
        assert kinds == {BatchStatistics}
        kinds = {type(m) for m in self.build(bn_mode="running").modules()}
        assert BatchStatistics not in kinds

    def test_shots_are_summed_or_averaged(self) -> None:
        episode = random_episode(65, shots=1)
        repeated = Episode(
            **{
                **vars(episode),
                "support": episode.support.repeat(1, 1, 3, 1, 1, 1),
                "support_mask": episode.support_mask.repeat(1, 1, 3, 1, 1),
            }
        )
        changes = []
        for fusion in ("sum", "mean"):
            model = self.build(fusion=fusion, bn_mode="running").eval()
            with torch.no_grad():
                changes.append((model(repeated).logits - model(episode).logits).abs().max().item())
        assert changes[0] > 1e-3 > 1e-4 > changes[1]

    @pytest.mark.parametrize("loss", ["bce", "mse"])
    def test_losses(self, loss: str) -> None:
        model = self.build(loss=loss).train()
        episode = random_episode(65)
        prediction = model(episode)
        probability = prediction.logits.softmax(1)[:, 1]
        counted = episode.query_mask != 255
        target = (episode.query_mask == 1).float()
        if loss == "mse":
            expected = (probability - target)[counted].square().mean()
        else:
            expected = torch.nn.functional.binary_cross_entropy(probability[counted], target[counted])
        torch.testing.assert_close(model.losses(prediction, episode)["main"], expected)

    def test_oblong_images_of_any_size(self) -> None:
        model = self.build().eval()
        episode = random_episode(96)
        cut = {"query": episode.query[..., :71], "support": episode.support[..., :71]}
        cut["support_mask"] = episode.support_mask[..., :71]
        with torch.no_grad():
            logits = model(Episode(**{**vars(episode), **cut, "query_mask": None, "base_label": None})).logits
        assert logits.shape == (2, 2, 96, 71)

    def test_too_small_an_image_is_named(self) -> None:
        model = self.build().eval()
        episode = random_episode(32, batch=1)
        with pytest.raises(ValueError, match="one value per channel"):
            model(episode)

    def test_base_learner_and_adaptation_are_refused(self) -> None:
        with pytest.raises(ValueError, match="reads padded or masked images"):
            self.build(base="pspnet", ensemble="bam")
        with pytest.raises(ValueError, match="cannot adapt FSS1000: its support branch sees the mask"):
            create_adapter("eftnet", self.build(bn_mode="running"))

    def test_a_base_learner_gives_its_weights_to_all_but_the_mask(self) -> None:
        model = self.build()
        drawn = next(model.backbone.parameters())[:, 3:].clone()
        learner = create_base_learner("pspnet", backbone=model.backbone.on_rgb(), classes=4)
        for parameter in learner.parameters():
            parameter.data.add_(1)
        model.adopt(learner)
        for own, given in zip(model.backbone.parameters(), learner.backbone.parameters(), strict=True):
            assert torch.equal(own[:, :3] if own.shape != given.shape else own, given)
        assert torch.equal(next(model.backbone.parameters())[:, 3:], drawn)

    def test_masks_are_a_fourth_channel(self) -> None:
        meta, episode = self.build().meta, random_episode(65)
        query = query_input(meta.inputs, episode.query)
        support = support_input(meta.inputs, episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        assert torch.equal(query[:, :3], episode.query)
        assert not query[:, 3].any()
        assert torch.equal(support[:, 3], (episode.support_mask[:, 0, 0] == 1).float())

    def test_published_pixels_are_rgb_of_zero_to_one(self) -> None:
        grey = torch.rand(2, 3, 9, 9)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) / 255 for values in (MEAN, STD))
        meta = self.build(pixels="unit").meta
        torch.testing.assert_close(query_input(meta.inputs, (grey - mean) / std)[:, :3], grey)


class TestFSS1000OnVGG(MetaLearnerTester):
    method = "fss1000"
    backbone = "vgg16"
    any_shot = True


def test_published_sizes() -> None:
    with torch.device("meta"):
        model = create_model("fss1000", backbone="vgg16")
    sizes = {name: sum(p.numel() for p in group) for name, group in model.param_groups().items()}
    assert sizes == {"backbone": 14_723_712, "relation": 18_109_313}


def test_published_file_is_read_and_recognised() -> None:
    model = create_model("fss1000", backbone="vgg16", backbone_options={"width": 8})
    published = to_published(model, model.state_dict())
    assert "feature_encoder.layer1.0.weight" in published
    assert published["feature_encoder.features.2.weight"].shape == (8, 8, 3, 3)
    assert "relation_network.double_conv5.3.bias" in published
    old = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    load_published(model, old)
    with torch.device("meta"):
        full = create_model("fss1000", backbone="vgg16")
    found = recognise(to_published(full, full.state_dict()))
    assert (found.name, found.backbone, found.base_classes) == ("fss1000", "vgg16", None)
