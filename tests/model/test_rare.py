"""RARE's own switches and losses, and what every meta-learner must do."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from fewseg.model import create_model
from fewseg.model.contract import Episode
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.error_prone import error_prone_loss, resampled
from fewseg.model.layer.pooling import masked_average_pool
from fewseg.model.layer.resize import resize_like
from fewseg.model.layer.retain_and_recover import most_similar
from tests.model.strategies import STRATEGIES
from tests.model.tester import MetaLearnerTester, random_episode

OFF = dict.fromkeys(STRATEGIES, False)


def groups_of(model: FewShotModel) -> set[str]:
    return set(model.param_groups())


class TestRARE(MetaLearnerTester):
    method = "rare"
    options = {"channels": 16}
    any_shot = True

    def test_one_shot_checkpoint_runs_five_shots(self) -> None:
        self.build(shot=5).load_state_dict(self.build(shot=1).state_dict())

    def test_alone_as_released(self) -> None:
        model = self.build()
        assert model.base_head is None
        assert model.ensemble is None

    def test_with_base_learner_and_ensemble(self) -> None:
        """Our composition: BAM's ensemble around these logits, and the three losses beside BAM's."""
        model = self.build(shot=2, base="pspnet", ensemble="bam").train()
        episode = random_episode(65, shots=2)
        prediction = model(episode)
        assert {"meta", "base", "scene_distance"} <= set(prediction.parts)
        losses = model.losses(prediction, episode, torch.Generator().manual_seed(0))
        assert set(losses) == {"main", "meta", "error_prone", "contrast", "base"}
        sum(losses.values()).backward()
        groups = model.param_groups()
        assert {"gram_merge", "cls_merge", "rows", "columns"} <= set(groups)
        assert all(p.grad is not None for group in groups.values() for p in group)

    def test_first_shot_uses_the_mean_or_its_own_prototype(self) -> None:
        episode = random_episode(65, shots=3)
        maps = {}
        for uses_mean in (True, False):
            model = self.build(shot=3, first_shot_uses_mean=uses_mean).eval()
            with torch.no_grad():
                maps[uses_mean] = model(episode).parts["fused"]
        assert not torch.allclose(maps[True], maps[False], rtol=1e-2, atol=0)

    def test_layout_equals_the_matrix_product_of_the_paper(self) -> None:
        meta = self.build().meta.eval()
        torch.manual_seed(1)
        feature, support = torch.rand(2, 16, 5, 7), torch.rand(2, 16, 5, 7)
        prototype = torch.rand(2, 16)
        rows, columns = support.mean(3), support.mean(2)
        with torch.no_grad():
            ours = meta.strategies.expand(feature, prototype, rows, columns)
            left = meta.rows(feature.mean(3), rows)
            right = meta.columns(columns, feature.mean(2))
        tiled = prototype[:, :, None, None].expand(-1, -1, 5, 7)
        torch.testing.assert_close(ours, left @ tiled @ right, rtol=1e-4, atol=1e-9)

    def test_without_its_strategies_it_is_bam_s_meta_learner(self) -> None:
        """Equal weights give equal logits and losses; several supports count equally."""
        for shot in (1, 3):
            ours = self.build(shot=shot, **OFF, contrast_weight=0.0)
            torch.manual_seed(1)
            bam = create_model(
                "bam",
                **{"backbone": self.backbone, "backbone_options": self.backbone_options, "base": None},
                **{"shot": shot, "image_size": 65, "shot_weights": "uniform", **self.options},
            )
            ours.load_state_dict(bam.state_dict())
            episode = random_episode(65, shots=shot)
            results = []
            for model in (ours.eval(), bam.eval()):
                prediction = model(episode)
                losses = model.losses(prediction, episode)
                sum(losses.values()).backward()
                results.append((prediction.logits, losses, model.meta.merge[0].weight.grad))
            torch.testing.assert_close(*results)
            assert results[0][1].keys() == {"main"}

    def test_each_strategy_is_a_part_of_its_own(self) -> None:
        """Adaptive integration has no weights; a part that is switched off has none left."""
        weights = {"unidirectional_pooling": {"rows", "columns"}, "error_prone_region": {"error_prone_merge"}}
        everything = groups_of(self.build())
        for strategy in STRATEGIES:
            assert everything - groups_of(self.build(**{strategy: False})) == weights.get(strategy, set())
        assert everything - groups_of(self.build(**OFF)) == set.union(*weights.values())

    def test_each_strategy_changes_the_outcome(self) -> None:
        episode = random_episode(65, shots=3)
        fused, shared = {}, self.build(shot=3).state_dict()
        for strategy in (None, *STRATEGIES):
            model = self.build(shot=3, **({strategy: False} if strategy else {})).eval()
            if strategy != "error_prone_region":  # with it, the merge has other inputs
                model.load_state_dict({name: shared[name] for name in model.state_dict()})
            with torch.no_grad():
                prediction = model(episode)
            fused[strategy] = prediction.parts["fused"] if strategy != "error_prone_region" else None
            losses = model.losses(prediction, episode)
            assert ("error_prone" in losses) == (strategy != "error_prone_region")
            assert ("error_prone_activation" in prediction.parts) == (strategy != "error_prone_region")
        for strategy in ("unidirectional_pooling", "adaptive_integration"):
            assert not torch.allclose(fused[None], fused[strategy], rtol=1e-2, atol=0)

    def test_contrast_loss_can_be_left_out(self) -> None:
        episode = random_episode(65)
        model = self.build(contrast_weight=0.0).eval()
        assert list(model.losses(model(episode), episode)) == ["main", "error_prone"]

    def test_softmax_over_the_support_keeps_the_size_of_a_prototype(self) -> None:
        """Over all pairs, it makes a spread prototype smaller by about the number of positions."""
        torch.manual_seed(1)
        feature, prototype, profile = torch.rand(2, 16, 9, 9), torch.rand(2, 16), torch.rand(2, 16, 9)
        sizes = {}
        for softmax in ("all", "support"):
            strategies = self.build(profile_softmax=softmax).meta.strategies
            with torch.no_grad():
                sizes[softmax] = strategies.expand(feature, prototype, profile, profile).norm()
        assert 40 < float(sizes["support"] / sizes["all"]) < 160

    def test_losses_have_the_published_names_and_weights(self) -> None:
        episode = random_episode(65)
        plain, weighted = self.build(), self.build(error_prone_weight=0.5, contrast_weight=2.0)
        for model in (plain, weighted):
            model.eval()
            model.meta.pick_pixel = lambda candidates, generator: candidates // 2
        with torch.no_grad():
            ones = plain.losses(plain(episode), episode)
            others = weighted.losses(weighted(episode), episode)
        assert list(ones) == ["main", "error_prone", "contrast"]
        torch.testing.assert_close(others["error_prone"], 0.5 * ones["error_prone"])
        torch.testing.assert_close(others["contrast"], 2 * ones["contrast"])

    def test_contrast_loss_draws_from_the_generator(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        with torch.no_grad():
            prediction = model(episode)
            drawn = [
                float(model.losses(prediction, episode, torch.Generator().manual_seed(seed))["contrast"])
                for seed in (3, 3, 4)
            ]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_contrast_loss_by_hand(self) -> None:
        model = self.build().eval()
        model.meta.pick_pixel = lambda candidates, generator: candidates - 1
        torch.manual_seed(0)
        merged = torch.rand(1, 16, 9, 9)
        label = torch.zeros(1, 65, 65, dtype=torch.int64)
        label[:, :32] = 1
        inside = resize_like((label == 1).float()[:, None], merged)
        centre = masked_average_pool(merged, inside)[0]
        chosen = inside.flatten() > 0.5
        flat = merged[0].flatten(1)
        anchor, other = flat[:, chosen][:, -1], flat[:, ~chosen][:, -1]
        expected = (
            1
            - cosine_similarity(anchor, centre, 0)
            + cosine_similarity(anchor, other, 0)
            + cosine_similarity(centre, other, 0)
        ) / 3
        torch.testing.assert_close(model.meta._contrast_loss(merged, label, None), expected)

    @pytest.mark.parametrize("parts", [{}, {"base": "pspnet", "ensemble": "bam"}])
    def test_losses_of_two_ways_are_those_of_two_tasks(self, parts: dict[str, str]) -> None:
        model = self.build(**parts).eval()
        model.meta.pick_pixel = lambda candidates, generator: candidates // 2
        episode = random_episode(65, ways=2)
        with torch.no_grad():
            both = model.losses(model(episode), episode)
            single = []
            for way in range(2):
                own = (episode.query_mask == way + 1).long()
                own[episode.query_mask == 255] = 255
                task = Episode(
                    query=episode.query,
                    support=episode.support[:, way : way + 1],
                    support_mask=episode.support_mask[:, way : way + 1],
                    class_id=episode.class_id[:, way : way + 1],
                    query_mask=own,
                )
                single.append(model.losses(model(task), task)["contrast"])
        torch.testing.assert_close(both["contrast"], sum(single) / 2)
        assert all(loss.isfinite() for loss in both.values())

    @pytest.mark.parametrize("value", [0, 1])
    def test_queries_of_one_region_have_no_auxiliary_loss(self, value: int) -> None:
        model = self.build().train()
        episode = random_episode(65)
        episode.query_mask.fill_(value)
        losses = model.losses(model(episode), episode)
        assert losses["error_prone"].item() == 0
        assert losses["contrast"].item() == 0
        assert losses["main"].isfinite()


def test_error_prone_loss_counts_lost_and_covered_pixels() -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[:, 3:7, 4:8] = 1
    label[0, 2, 4] = 255
    grid = torch.zeros(1, 1, 4, 4)
    kept = resampled((label == 1).float()[:, None], grid)[0, 0]
    lost, covered = (label[0] == 1) & (kept == 0), (label[0] != 1) & (kept == 1)
    assert lost.sum() == 4
    assert covered.sum() == 4
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 8, 8)
    log = logits[0].log_softmax(0)
    expected = -(log[1][lost].sum() + log[0][covered].sum()) / 8 * (4 / 16)
    torch.testing.assert_close(error_prone_loss(logits, label, grid), expected)


def test_most_similar_copies_whole_vectors() -> None:
    feature = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    first = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    second = torch.tensor([[0.0, 0.0], [3.0, 3.0]]).view(1, 2, 1, 2)
    chosen = most_similar(torch.stack([first, second], 1), feature)
    torch.testing.assert_close(chosen.view(2, 2), torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
