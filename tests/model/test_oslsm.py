"""OSLSM's geometry and hash, its own switches, and what every meta-learner must do."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fewseg.engine.training.optimisation import PolySchedule, create_optimizer
from fewseg.model import create_adapter, create_model
from fewseg.model.checkpoint.published import load_published, published_names, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.input_view import query_input, support_input
from fewseg.model.meta.oslsm.weight_hash import WeightHash
from fewseg.model.pixels import CAFFE_MEAN, MEAN, STD
from tests.model.tester import MetaLearnerTester, random_episode

SMALL = {"fc_dim": 24, "code_dim": 12, "support_side": 64, "fc_kernel": 3, "query_margin": 16}


class TestOSLSM(MetaLearnerTester):
    method = "oslsm"
    options = SMALL
    any_shot = True

    def test_shots_are_joined_by_or(self) -> None:
        model = self.build().eval()
        episode = random_episode(65, shots=3)
        with torch.no_grad():
            whole = model(episode).logits.argmax(1).bool()
            single = torch.zeros_like(whole)
            for images, masks in zip(
                episode.support.split(1, 2), episode.support_mask.split(1, 2), strict=True
            ):
                alone = Episode(**{**vars(episode), "support": images, "support_mask": masks})
                single |= model(alone).logits.argmax(1).bool()
        assert torch.equal(whole, single)

    def test_order_and_repetition_of_shots_change_nothing(self) -> None:
        model = self.build().eval()
        episode = random_episode(65, shots=2)
        turned = Episode(
            **{
                **vars(episode),
                "support": episode.support.flip(2).repeat(1, 1, 2, 1, 1, 1),
                "support_mask": episode.support_mask.flip(2).repeat(1, 1, 2, 1, 1),
            }
        )
        with torch.no_grad():
            torch.testing.assert_close(model(turned).logits, model(episode).logits, atol=1e-5, rtol=1e-4)

    def test_sum_and_mean_of_the_loss(self) -> None:
        episode = random_episode(65)
        losses = {}
        for reduction in ("sum", "mean"):
            model = self.build(loss_reduction=reduction, dropout=0.0).train()
            losses[reduction] = model.losses(model(episode), episode)["main"].item()
        pixels = (episode.query_mask != 255).sum().item()
        assert losses["sum"] == pytest.approx(losses["mean"] * pixels / len(episode.query), rel=1e-4)

    def test_void_pixels_are_ignored_unless_background(self) -> None:
        episode = random_episode(65)
        cleared = Episode(
            **{**vars(episode), "query_mask": episode.query_mask.masked_fill(episode.query_mask == 255, 0)}
        )
        for background in (False, True):
            model = self.build(void_as_background=background).eval()
            prediction = model(episode)
            losses = [model.losses(prediction, e)["main"].item() for e in (episode, cleared)]
            assert (losses[0] == losses[1]) == background

    def test_support_is_stretched_and_masked(self) -> None:
        meta, episode = self.build().meta, random_episode(65)
        seen = support_input(meta.inputs, episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        assert seen.shape == (2, 3, 64, 64)
        inside = (episode.support_mask[:, 0, 0] == 1).float().mean().item()
        assert (seen != 0).any(1).float().mean().item() == pytest.approx(inside, abs=0.02)

    def test_query_lies_in_a_margin_of_zeros(self) -> None:
        meta, episode = self.build().meta, random_episode(65)
        seen = query_input(meta.inputs, episode.query)
        assert torch.equal(seen[:, :, 16:-16, 16:-16], episode.query)
        assert seen.abs().sum() == pytest.approx(episode.query.abs().sum().item(), rel=1e-5)

    def test_published_pixels_are_bgr_without_the_mean(self) -> None:
        levels = 255 * torch.rand(1, 3, 65, 65)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        seen = query_input(self.build(pixels="caffe").meta.inputs, (levels - mean) / std)[
            :, :, 16:-16, 16:-16
        ]
        wanted = levels.flip(1) - torch.tensor(CAFFE_MEAN).view(1, 3, 1, 1)
        torch.testing.assert_close(seen, wanted, atol=1e-3, rtol=1e-4)

    def test_base_learner_and_adaptation_are_refused(self) -> None:
        with pytest.raises(ValueError, match="reads padded or masked images"):
            self.build(base="pspnet", ensemble="bam")
        with pytest.raises(ValueError, match="cannot adapt OSLSM: its support branch sees the masked image"):
            create_adapter("eftnet", self.build())

    def test_bad_options_are_named(self) -> None:
        with pytest.raises(ValueError, match="'query_margin' of oslsm must be at least 80 for fc_kernel 7"):
            self.build(fc_kernel=7, query_margin=60)
        with pytest.raises(ValueError, match="'fc_dim' of oslsm must be at least 1, got 0"):
            self.build(fc_dim=0)

    def test_dilated_backbone_needs_its_own_stride(self) -> None:
        dilated = {"backbone": "resnet18", "backbone_options": {"width": 8, "dilation": (1, 1, 2, 4)}}
        episode = random_episode(65)
        with pytest.raises(ValueError, match="needs cells with a stride of 32 pixels"):
            create_model("oslsm", **dilated, **SMALL).eval()(episode)
        with torch.no_grad():
            logits = create_model("oslsm", **dilated, **SMALL, cell_stride=8).eval()(episode).logits
        assert logits.shape == (2, 2, 65, 65)

    def test_branches_start_from_the_same_weights(self) -> None:
        model = self.build()
        torch.nn.init.normal_(next(model.backbone.parameters()))
        classifier = {
            f"classifier.{place}.{name}": torch.randn_like(parameter)
            for place in (0, 3, 6)
            for name, parameter in model.meta.condition.classifier[place].named_parameters()
        }
        model.meta.initialise(model.backbone, classifier)
        for one, other in zip(
            model.backbone.parameters(), model.meta.condition.backbone.parameters(), strict=True
        ):
            assert torch.equal(one, other)
        wanted = classifier["classifier.0.weight"]
        assert torch.equal(model.meta.condition.classifier[0].weight, wanted)
        assert torch.equal(model.meta.cells[0].weight.flatten(1), wanted)
        assert torch.equal(model.meta.condition.classifier[6].bias, classifier["classifier.6.bias"])

    def test_groups_learn_at_their_own_rates(self) -> None:
        model = self.build()
        groups = model.param_groups()
        assert list(groups)[:4] == ["backbone", "backbone.bias", "condition", "condition.bias"]
        optimizer = create_optimizer(
            groups, lr=1.0, weight_decay=5e-4, rules=model.meta.learning.group_rules, clip_norm=0.5
        )
        PolySchedule(1e-10, 10, power=0, index_split=99).apply(optimizer, 1)
        found = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
        wanted = {"backbone": (1e-10, 5e-4), "condition": (1e-11, 5e-4), "condition.bias": (2e-11, 0.0)}
        for name, values in wanted.items():
            assert found[name] == pytest.approx(values)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        for group in optimizer.param_groups:
            assert torch.stack([p.grad.norm() for p in group["params"]]).norm() == pytest.approx(
                0.5, rel=1e-3
            )


def small_vgg(**options: object) -> FewShotModel:
    torch.manual_seed(0)
    return create_model("oslsm", backbone="vgg16", backbone_options={"width": 8}, **{**SMALL, **options})


@pytest.mark.parametrize(("side", "cells"), [(500, 18), (224, 9)])
def test_published_geometry(side: int, cells: int) -> None:
    model = small_vgg(fc_kernel=7, query_margin=120, fc_dim=4).eval()
    with torch.no_grad():
        feature = model.encode_query(torch.zeros(1, 3, side, side))["feature"]
    assert feature.shape == (1, 4, cells, cells)
    flat = Prediction(torch.zeros(1), {"cell_logits": torch.full((1, 1, cells, cells), 3.0)})
    assert torch.allclose(model.meta.shot_logits(flat, (side, side)), torch.tensor(3.0))


@pytest.mark.parametrize(
    ("kernel", "margin", "stride"), [(7, 120, 32), (3, 16, 32), (1, 0, 32), (1, 0, 8), (3, 4, 8)]
)
def test_a_cell_lies_where_it_looked(kernel: int, margin: int, stride: int) -> None:
    """One bright cell is spread about the middle of the pixels that it covers."""
    meta = small_vgg(fc_kernel=kernel, query_margin=margin, cell_stride=stride).meta
    side = 160
    count = -(-(side + 2 * margin) // stride) - kernel + 1
    cells = torch.zeros(1, 1, count, count)
    cells[0, 0, count // 2, count // 2] = 1
    spread = meta.shot_logits(Prediction(torch.zeros(1), {"cell_logits": cells}), (side, side))[0, 0]
    middle = (spread.sum(1) * torch.arange(side)).sum() / spread.sum()
    first = stride * (count // 2) - margin  # of the window that the cell looked at
    assert middle.item() == pytest.approx(first + stride * kernel / 2 - 0.5, abs=1e-3)


def test_hash_repeats_numpys_stream() -> None:
    for seed, inputs, outputs in ((3325006385, 1000, 4097), (7, 12, 25), (0, 2, 3)):
        drawn = np.random.RandomState(seed)
        kappa, sign = drawn.randint(0, inputs, outputs), drawn.randint(0, 2, outputs)
        own = WeightHash(inputs, outputs, seed)
        assert np.array_equal(own.kappa.numpy(), kappa)
        assert np.array_equal(own.zeta.numpy(), 2 * sign - 1)


def dense(model: FewShotModel, kappa: Tensor, zeta: Tensor) -> dict[str, Tensor]:
    """Return a published file whose hash is two dense layers, as Caffe has it."""
    matrix = torch.zeros(len(kappa), model.meta.options.code_dim)
    matrix[torch.arange(len(kappa)), kappa] = zeta
    published = to_published(model, model.state_dict())
    published = {name: value for name, value in published.items() if not name.startswith("hash.")}
    published |= {"rw1s.weight": matrix[:-1], "rb1s.weight": matrix[-1:]}
    return published | {
        "rw1s.bias": torch.zeros(len(kappa) - 1),
        "uppred_offset.weight": torch.ones(1, 1, 64, 64),
    }


def test_dense_hash_of_a_published_file_is_read() -> None:
    model = small_vgg()
    other = WeightHash(12, 25, seed=5)
    load_published(model, dense(model, other.kappa, other.zeta))
    assert torch.equal(model.meta.hash.kappa, other.kappa)
    assert torch.equal(model.meta.hash.zeta, other.zeta)
    code = torch.randn(2, 12)
    torch.testing.assert_close(model.meta.hash(code), other(code))


def test_empty_hash_of_a_published_file_leaves_the_drawn_one() -> None:
    model = small_vgg()
    drawn = model.meta.hash.kappa.clone()
    load_published(model, dense(model, drawn, torch.zeros(25)))
    assert torch.equal(model.meta.hash.kappa, drawn)


def test_a_layer_that_is_no_hash_is_refused() -> None:
    model = small_vgg()
    published = dense(model, model.meta.hash.kappa, model.meta.hash.zeta)
    published["rw1s.weight"] = torch.ones(24, 12)
    with pytest.raises(ValueError, match="one entry other than 0 in every row"):
        load_published(model, published)


def test_published_names_sizes_and_recognition() -> None:
    with torch.device("meta"):
        model = create_model("oslsm", backbone="vgg16")
    names = set(published_names(model).values()) - {"hash.kappa", "hash.zeta"}
    assert len(names) == 62
    assert {"conv1_1f.weight", "conv5_3s.bias", "fc6s.weight", "fc8f.bias"} <= names
    sizes = {name: sum(p.numel() for p in group) for name, group in model.param_groups().items()}
    assert sizes["condition"] + sizes["condition.bias"] == 138_357_544
    assert sum(sizes.values()) == 272_618_088
    published = to_published(model, model.state_dict())
    found = recognise({name: value for name, value in published.items() if not name.startswith("hash.")})
    assert (found.name, found.backbone, found.base_classes) == ("oslsm", "vgg16", None)
