"""HSNet's own switches, its layers one by one, and what every meta-learner must do."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, normalize, relu

from fewseg.model import create_adapter, create_model
from fewseg.model.checkpoint.published import load_published, to_published
from fewseg.model.checkpoint.recognise import recognise
from fewseg.model.contract import Episode, Prediction
from fewseg.model.meta.hsnet.centre_pivot import CentrePivotConv, PivotGroupNorm
from fewseg.model.meta.hsnet.hsnet import upsample_query
from fewseg.model.meta.hsnet.hypercorrelation import hypercorrelation, object_vectors, unit_vectors
from tests.model.tester import MetaLearnerTester, random_episode
from tools.benchmarks.hsnet import compare_matching, plain_convolution


class TestHSNet(MetaLearnerTester):
    method = "hsnet"
    options = {"channels": 32}
    any_shot = True

    def test_shots_vote_at_the_size_of_the_image(self) -> None:
        """At least half the votes of the pixel that has most of them make a pixel foreground."""
        model = self.build().eval()
        episode = random_episode(65, shots=4)
        with torch.no_grad():
            prediction = model(episode)
            single = [
                model(
                    Episode(
                        **{**vars(episode), "support": images[:, :, None], "support_mask": masks[:, :, None]}
                    )
                )
                for images, masks in zip(
                    episode.support.unbind(2), episode.support_mask.unbind(2), strict=True
                )
            ]
        votes = sum(p.logits.argmax(1) for p in single)
        most = votes.amax((1, 2), keepdim=True).clamp_min(1)
        assert torch.equal(prediction.logits.argmax(1) == 1, votes / most >= 0.5)

    def test_half_the_votes_suffice_and_no_votes_stay_background(self) -> None:
        meta = self.build().meta
        shots = torch.zeros(1, 4, 2, 1, 4)
        for pixel, votes in enumerate((0, 1, 2, 4)):
            shots[0, :, 1, 0, pixel] = torch.tensor([1.0 if shot < votes else -1.0 for shot in range(4)])
        prediction = Prediction(shots[:, 0], {"shot_logits": shots})
        assert meta.upsample(prediction, (1, 4)).argmax(1).flatten().tolist() == [0, 0, 1, 1]
        silent = Prediction(
            shots[:, 0], {"shot_logits": torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1).repeat(1, 4, 1, 1, 1)}
        )
        assert meta.upsample(silent, (1, 1)).argmax(1).item() == 0

    def test_several_shots_learn_as_single_ones(self) -> None:
        model = self.build().train()
        episode = random_episode(65, shots=2)
        whole = model.losses(model(episode), episode)["main"]
        single = []
        for shot in range(2):
            alone = Episode(
                **{
                    **vars(episode),
                    "support": episode.support[:, :, shot : shot + 1],
                    "support_mask": episode.support_mask[:, :, shot : shot + 1],
                }
            )
            single.append(model.losses(model(alone), alone)["main"])
        torch.testing.assert_close(whole, torch.stack(single).mean())

    @pytest.mark.parametrize("shot", [1, 3])
    def test_with_base_learner_and_ensemble(self, shot: int) -> None:
        model = self.build(base="pspnet", ensemble="bam").train()
        episode = random_episode(65, shots=shot)
        prediction = model(episode)
        losses = model.losses(prediction, episode)
        assert set(losses) == {"main", "meta", "base"}
        (losses["main"] + losses["meta"]).backward()
        assert all(p.grad is not None for group in model.param_groups().values() for p in group)
        assert prediction.parts["meta"].shape == prediction.logits.shape == (2, 2, 65, 65)

    def test_adaptation_is_refused(self) -> None:
        with pytest.raises(ValueError, match="cannot adapt HSNet: nothing in its guidance"):
            create_adapter("eftnet", self.build())

    def test_void_pixels_count_as_background_unless_ignored(self) -> None:
        episode = random_episode(65)
        cleared = Episode(
            **{**vars(episode), "query_mask": episode.query_mask.masked_fill(episode.query_mask == 255, 0)}
        )
        losses = []
        for ignore in (False, True):
            model = self.build(ignore_boundary=ignore).train()
            prediction = model(episode)
            losses.append(tuple(model.losses(prediction, e)["main"].item() for e in (episode, cleared)))
        assert losses[0][0] == losses[0][1] == losses[1][1]
        assert losses[1][0] != losses[1][1]

    def test_support_encoding_drops_what_lies_outside_the_mask(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        small = torch.zeros_like(episode.support_mask[:1, 0, 0])
        small[:, 20:30, 20:30] = 1
        encoding = model.encode_support(episode.support[:1, 0, 0], small)
        for level in range(3):
            kept = int(encoding[f"occupied{level}"].sum())
            assert encoding[f"object{level}"].shape[-1] == max(1, kept)
            assert kept < 12

    def test_oblong_images(self) -> None:
        model = self.build().eval()
        episode = random_episode(96)
        oblong = Episode(
            **{
                **vars(episode),
                "query": episode.query[..., :64],
                "support": episode.support[..., :64, :],
                "support_mask": episode.support_mask[..., :64, :],
                "query_mask": None,
                "base_label": None,
            }
        )
        with pytest.raises(ValueError, match="support_mask"):
            Episode(**{**vars(oblong), "support_mask": episode.support_mask})
        with torch.no_grad():
            assert model(oblong).logits.shape == (2, 2, 96, 64)

    @pytest.mark.parametrize("levels", [[2], [4], [2, 4], [3, 4]])
    def test_a_part_of_the_pyramid(self, levels: list[int]) -> None:
        """The blocks of the other levels have no weights, and their features are not read."""
        whole, part = self.build(), self.build(levels=levels)
        names = {name.split(".")[1] for name in to_published(part, part.state_dict()) if "hpn" in name}
        pairs = {f"encoder_layer{coarse}to{fine}" for fine, coarse in pairwise(levels)}
        assert names == {*(f"encoder_layer{n}" for n in levels), *pairs, "decoder1", "decoder2"}
        assert {name.partition(".")[0] for name in part.meta.inputs.query} == {f"layer{n}" for n in levels}
        episode = random_episode(65)
        with torch.no_grad():
            assert not torch.equal(part.eval()(episode).logits, whole.eval()(episode).logits)
        part.losses(part.train()(episode), episode)["main"].backward()
        assert all(p.grad is not None for group in part.param_groups().values() for p in group)

    @pytest.mark.parametrize("levels", [[4, 3], [3, 3]])
    def test_levels_are_named_once_and_in_order(self, levels: list[int]) -> None:
        with pytest.raises(ValueError, match="levels of hsnet must be different and ascending"):
            self.build(levels=levels)

    def test_width_must_suit_the_groups(self) -> None:
        with pytest.raises(ValueError, match="multiple of 32, got 20"):
            self.build(channels=20)


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_published_file_with_its_classifier_is_read_and_recognised(backbone: str) -> None:
    model = create_model("hsnet", backbone=backbone)
    published = {f"module.{k}": v for k, v in to_published(model, model.state_dict()).items()}
    extra = "fc.weight" if backbone == "resnet50" else "classifier.6.bias"
    published[f"module.backbone.{extra}"] = torch.zeros(3)
    first = "conv1.weight" if backbone == "resnet50" else "features.28.weight"
    assert f"module.backbone.{first}" in published
    load_published(model, published)
    found = recognise(published)
    assert (found.name, found.backbone, found.base_classes) == ("hsnet", backbone, None)


def test_support_grids_that_cannot_be_mixed_are_named() -> None:
    coarse, fine = torch.zeros(1, 2, 2, 4, 5, 5), torch.zeros(1, 3, 3, 4, 9, 9)
    with pytest.raises(ValueError, match="2x2 and 3x3 cells cannot be mixed"):
        upsample_query(coarse, fine)
    assert upsample_query(coarse[:, :1, :1], fine).shape == (1, 1, 1, 4, 9, 9)


def support_first(x: Tensor) -> Tensor:
    return x.permute(0, 4, 5, 1, 2, 3).contiguous()


@pytest.mark.parametrize(("kernel", "stride"), [(5, 4), (3, 2), (3, 1)])
@pytest.mark.parametrize("grid", [(9, 6), (2, 2), (1, 1)])
def test_convolution_is_the_plain_one(kernel: int, stride: int, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = CentrePivotConv(3, 8, kernel, stride).double()
    x = torch.randn(2, 3, 5, 7, *grid, dtype=torch.float64, requires_grad=True)
    own = x.detach().clone().requires_grad_(True)
    plain = support_first(plain_convolution(layer, x))
    ours = layer(support_first(own))
    torch.testing.assert_close(ours, plain)
    weight = torch.randn_like(plain)
    parameters = list(layer.parameters())
    theirs = torch.autograd.grad((plain * weight).sum(), [x, *parameters])
    for wanted, given in zip(
        theirs, torch.autograd.grad((ours * weight).sum(), [own, *parameters]), strict=True
    ):
        torch.testing.assert_close(given, wanted)


def test_skipping_empty_positions_changes_nothing() -> None:
    torch.manual_seed(0)
    occupied = torch.zeros(2, 13, 13, dtype=torch.bool)
    occupied[0, 2:5, 8:11] = True
    occupied[1, 0, 0] = True
    x = torch.randn(2, 13, 13, 3, 5, 5) * occupied[:, :, :, None, None, None]
    for layer in (CentrePivotConv(3, 8, 5, 4), CentrePivotConv(3, 8, 3, 2)):
        torch.testing.assert_close(layer(x, occupied), layer(x))
        torch.testing.assert_close(layer(0 * x, torch.zeros_like(occupied)), layer(0 * x))


def test_group_norm_is_the_plain_one() -> None:
    torch.manual_seed(0)
    norm = PivotGroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + 0.5 * torch.randn(2, 2, 3, 8, 5, 4)
    plain = group_norm(x.permute(0, 3, 1, 2, 4, 5), 4, norm.weight, norm.bias).permute(0, 2, 3, 1, 4, 5)
    torch.testing.assert_close(norm(x), plain, atol=1e-4, rtol=1e-4)


def test_hypercorrelation_is_the_positive_cosine_with_the_masked_support() -> None:
    torch.manual_seed(0)
    query, support = torch.randn(2, 2, 16, 4, 5), torch.randn(2, 2, 16, 3, 4)
    mask = torch.rand(2, 1, 3, 4) * (torch.rand(2, 1, 3, 4) > 0.5)
    ours = hypercorrelation(unit_vectors(query), object_vectors(support, mask), mask[:, 0] > 0)
    cosine = torch.einsum("blcqr,blcst->bstlqr", normalize(query, dim=2), normalize(support, dim=2))
    plain = relu(cosine) * (mask[:, 0] > 0)[:, :, :, None, None, None]
    torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-3)


def test_benchmark_compares_the_same_thing() -> None:
    found = compare_matching(65, "resnet18", 1, training=True, channels=32, backbone_options={"width": 8})
    assert found["difference"] < 1e-4
    assert all(seconds > 0 for name, seconds in found.items() if name != "difference")
