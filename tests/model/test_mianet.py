"""MIANet's own switches, and what every meta-learner must do."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fewseg.model.meta.mianet.general_information import triplet_loss
from fewseg.model.meta.mianet.hierarchical_prior import hierarchical_prior, support_means
from fewseg.model.records import TextInput
from tests.model.tester import MetaLearnerTester, decode_encoded, random_episode

TABLE = normalize(torch.randn(21, 300, generator=torch.Generator().manual_seed(0)), dim=1)


class TestMIANet(MetaLearnerTester):
    method = "mianet"
    options = {"channels": 16, "embeddings": TABLE}
    any_shot = True

    def test_composed_with_base_learner_and_ensemble(self) -> None:
        model = self.build(base="pspnet", ensemble="bam").train()
        episode = random_episode(65)
        losses = model.losses(model(episode), episode)
        assert list(losses) == ["main", "meta", "inner", "triplet", "base"]
        sum(losses.values()).backward()
        assert all(p.grad is not None for group in model.param_groups().values() for p in group)

    def test_the_class_matters(self) -> None:
        episode = random_episode(65)
        other = replace(episode, class_id=episode.class_id + 5)
        model = self.build().eval()
        with torch.no_grad():
            assert not torch.allclose(model(episode).logits, model(other).logits)

    @pytest.mark.parametrize("class_id", [0, 21])
    def test_a_class_without_a_word_vector_is_named(self, class_id: int) -> None:
        episode = random_episode(65)
        strange = replace(episode, class_id=torch.tensor([[3], [class_id]]))
        with pytest.raises(ValueError, match=f"class {class_id} has no word vector.*1 to 20"):
            self.build().eval()(strange)

    def test_supports_without_a_class_are_refused(self) -> None:
        episode = random_episode(65)
        model = self.build().eval()
        query = model.encode_query(episode.query)
        support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        with pytest.raises(ValueError, match="pass class_id"):
            model.meta.match(query, {name: t.unsqueeze(1) for name, t in support.items()})

    def test_a_table_is_required(self) -> None:
        with pytest.raises(ValueError, match="needs word vectors"):
            self.build(embeddings=None)

    @pytest.mark.parametrize("shape", [(21, 0), (300,), (1, 300)])
    def test_a_table_of_the_wrong_shape_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"must be \[1 \+ classes, width\].*got \[" + str(shape[0])):
            self.build(embeddings=torch.zeros(shape))

    @pytest.mark.parametrize("width", [7, 600])
    def test_word_vectors_may_have_any_width(self, width: int) -> None:
        model = self.build(embeddings=torch.randn(21, width)).eval()
        assert model.meta.generator[0].in_features == width + 16
        with torch.no_grad():
            assert model(random_episode(65)).logits.isfinite().all()

    @pytest.mark.parametrize(
        ("options", "absent"),
        [
            ({"general_information": False, "embeddings": None}, {"generator", "local_features"}),
            ({"triplet_weight": 0.0}, {"local_features"}),
            ({"prior": "single"}, set()),
            ({"prior": "none"}, set()),
        ],
    )
    def test_a_part_can_be_switched_off(self, options: dict[str, object], absent: set[str]) -> None:
        """The rest still learns, gives something else, and has no weights for the part."""
        whole, rest = self.build(), self.build(**options)
        children, left = (
            {name.split(".")[0] for name, _ in model.meta.named_parameters()} for model in (whole, rest)
        )
        assert children - left == absent
        assert rest.meta.decoder.merge[0][0].in_channels == 32 + (rest.meta.options.prior != "none")
        episode = random_episode(65, shots=2)
        losses = rest.losses(rest.train()(episode), episode)
        assert set(losses) == {"main", "inner"} | ({"triplet"} if "local_features" not in absent else set())
        sum(losses.values()).backward()
        assert all(p.grad is not None for group in rest.param_groups().values() for p in group)
        if rest.meta.options.prior != "none":  # where the decoder has fewer weights
            rest.load_state_dict(whole.state_dict(), strict=False)
        with torch.no_grad():
            with_part, without = whole.eval()(episode).logits, rest.eval()(episode).logits
            torch.testing.assert_close(decode_encoded(rest, episode), without, atol=1e-5, rtol=1e-4)
        only_in_training = absent == {"local_features"}
        assert torch.equal(with_part, without) == only_in_training

    def test_without_the_general_information_module_no_class_is_read(self) -> None:
        model, episode = self.build(general_information=False).eval(), random_episode(65)
        with torch.no_grad():
            logits = [model(e).logits for e in (episode, replace(episode, class_id=episode.class_id + 5))]
            assert torch.equal(*logits)
        assert model.meta.inputs.text is TextInput.NONE and model.meta.embeddings is None

    def test_weight_and_margin_of_the_triplet_loss(self) -> None:
        def triplet(**options: float) -> float:
            model, episode = self.build(**options).train(), random_episode(65)
            torch.manual_seed(1)
            return model.losses(model(episode), episode)["triplet"].item()

        published = triplet()
        assert triplet(triplet_weight=2.0) == pytest.approx(2 * published)
        assert triplet(triplet_margin=1.5) == pytest.approx(published + 1)

    def test_the_table_is_no_part_of_a_checkpoint(self) -> None:
        assert not [name for name in self.build().state_dict() if "embeddings" in name]

    @pytest.mark.parametrize(("side", "scales"), [(473, (60, 30, 15, 8)), (641, (81, 41, 21, 11))])
    def test_default_scales(self, side: int, scales: tuple[int, ...]) -> None:
        assert self.build(side=side).meta.scales == scales

    @pytest.mark.parametrize("scales", [(60, 30, 15, 8), (5, 3), (1.0, 0.5, 0.25)])
    def test_scales_that_are_not_those_of_the_features(self, scales: tuple[float, ...]) -> None:
        model = self.build(ppm_scales=scales).eval()
        with torch.no_grad():
            prediction = model(random_episode(65))
        assert prediction.logits.isfinite().all()
        assert f"prior{len(scales) - 1}" in prediction.parts

    def test_equal_supports_are_one_support(self) -> None:
        episode = random_episode(65)
        repeated = replace(
            episode,
            support=episode.support.repeat(1, 1, 3, 1, 1, 1),
            support_mask=episode.support_mask.repeat(1, 1, 3, 1, 1),
        )
        model = self.build().train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
                module.p = 0.0
        losses = [model.losses(model(e), e) for e in (episode, repeated)]
        for name in ("main", "inner", "triplet"):
            torch.testing.assert_close(losses[1][name], losses[0][name], rtol=1e-4, atol=1e-5)

    def test_batch_statistics_are_a_switch(self) -> None:
        model = self.build(fix_bn=False).train()
        model(random_episode(65))
        counted = {int(v) for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
        assert counted == {2}  # queries, then supports

    def test_two_ways_are_trained_each_on_its_own_label(self) -> None:
        model = self.build().train()
        episode = random_episode(65, ways=2)
        losses = model.losses(model(episode), episode)
        assert set(losses) == {"main", "inner", "triplet"}
        assert all(loss.isfinite() for loss in losses.values())

    def test_threshold_of_the_triplet_mask(self) -> None:
        model = self.build(object_threshold=0.999).train()
        mask = torch.full((1, 1, 9, 9), 0.9995)
        assert model.meta._local(torch.zeros(1, 16, 9, 9), mask)["local_object"].all()
        assert not self.build().meta._local(torch.zeros(1, 16, 9, 9), mask)["local_object"].any()


def literal_prior(query: Tensor, support: Tensor) -> Tensor:
    """The mean over support positions of all cosines, stretched; [B,C,b,b] -> [B,1,b,b]."""
    q, s = query.flatten(2), support.flatten(2)
    lengths = q.norm(dim=1)[:, :, None] * s.norm(dim=1)[:, None]
    mean = (torch.bmm(q.transpose(1, 2), s) / (lengths + 1e-7)).mean(2)
    low, high = mean.amin(1, keepdim=True), mean.amax(1, keepdim=True)
    return ((mean - low) / (high - low + 1e-7)).view(len(q), 1, *query.shape[-2:])


def test_one_mean_vector_per_level_gives_the_mean_of_all_cosines() -> None:
    query, support = torch.rand(2, 8, 6, 6, dtype=torch.float64), torch.rand(2, 8, 6, 6, dtype=torch.float64)
    mask = torch.rand(2, 1, 6, 6, dtype=torch.float64).round()
    sizes = [(6, 6), (3, 3)]
    first, second = hierarchical_prior(query, support_means(support, mask, sizes), sizes)
    torch.testing.assert_close(first, literal_prior(query, support * mask), atol=1e-6, rtol=1e-5)
    pooled = torch.nn.functional.adaptive_avg_pool2d(query * first, 3)
    small = torch.nn.functional.interpolate(
        torch.cat([support, mask], 1), (3, 3), mode="bilinear", align_corners=True
    )
    expected = literal_prior(pooled, small[:, :-1] * small[:, -1:])
    torch.testing.assert_close(second, expected, atol=1e-5, rtol=1e-4)


def test_triplet_loss_by_hand() -> None:
    anchor = torch.tensor([[1.0, 0.0]])
    local = torch.tensor([[[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, -1.0]]]])
    inside = torch.tensor([[[True, True, False, False]]])
    # The farthest positive is a right angle away; the negatives' mean is (-0.5, -0.5).
    expected = 0.5 + 2**0.5 - (1.5**2 + 0.5**2) ** 0.5
    assert triplet_loss(anchor, local, inside, 0.5).item() == pytest.approx(expected, abs=1e-4)


def test_supports_without_object_or_without_background_do_not_count() -> None:
    anchor = torch.randn(1, 4, requires_grad=True)
    local = torch.randn(1, 3, 5, 4)
    inside = torch.zeros(1, 3, 5, dtype=torch.bool)
    inside[0, 0, :2] = True
    inside[0, 1] = True
    alone = triplet_loss(anchor, local[:, :1], inside[:, :1], 0.5)
    torch.testing.assert_close(triplet_loss(anchor, local, inside, 0.5), alone)
    nothing = triplet_loss(anchor, local[:, 1:], inside[:, 1:], 0.5)
    nothing.backward()
    assert nothing.item() == 0
    assert anchor.grad.isfinite().all()
