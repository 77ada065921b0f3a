"""What the methods must be able to do that can use RARE's strategies around their merge."""

from __future__ import annotations

import pytest
import torch

from fewseg.model import create_adapter
from fewseg.model.encoding import group_encoding
from fewseg.model.fewshot import FewShotModel
from tests.model.tester import MetaLearnerTester, random_episode

STRATEGIES = ("unidirectional_pooling", "error_prone_region", "adaptive_integration")
WEIGHTS = {"unidirectional_pooling": ("rows.", "columns."), "error_prone_region": ("error_prone_merge",)}
"""Strategy -> what the names of its weights contain; adaptive integration has none."""


def weights_of(model: FewShotModel) -> set[str]:
    return {name for name, _ in model.meta.named_parameters()}


class StrategiesTester(MetaLearnerTester):
    """Of methods that are published without the strategies."""

    def test_strategies_are_off_and_have_no_weights_then(self) -> None:
        plain = weights_of(self.build())
        assert plain == weights_of(self.build(**dict.fromkeys(STRATEGIES, False)))
        for strategy in STRATEGIES:
            added = weights_of(self.build(**{strategy: True})) - plain
            kinds = WEIGHTS.get(strategy, ())
            assert bool(added) == bool(kinds)
            assert all(any(kind in name for kind in kinds) for name in added)

    @pytest.mark.parametrize("strategy", ["unidirectional_pooling", "adaptive_integration"])
    def test_prototypes_at_every_position_change_the_outcome(self, strategy: str) -> None:
        episode = random_episode(65, shots=3)
        plain, changed = self.build(shot=3).eval(), self.build(shot=3, **{strategy: True}).eval()
        changed.load_state_dict(plain.state_dict(), strict=False)
        with torch.no_grad():
            assert not torch.allclose(plain(episode).logits, changed(episode).logits, atol=1e-6)

    def test_error_prone_region_counts_by_its_share(self) -> None:
        model, episode = self.build(error_prone_region=True).eval(), random_episode(65)
        with torch.no_grad():
            query = model.encode_query(episode.query)
            support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
            guidance = model.meta.match(query, group_encoding(support, 2, 1))
            counted, none = (
                model.meta.segment(query, {**guidance, "error_prone_share": share}).logits
                for share in (torch.ones(2), torch.zeros(2))
            )
        assert not torch.allclose(counted, none, atol=1e-6)

    @pytest.mark.parametrize("shot", [1, 3])
    def test_trained_and_adapted_with_all_strategies(self, shot: int) -> None:
        model = self.build(shot=shot, **dict.fromkeys(STRATEGIES, True)).train()
        episode = random_episode(65, shots=shot)
        losses = model.losses(model(episode), episode)
        assert "error_prone" in losses
        sum(losses.values()).backward()
        trained = {name: p for name, p in model.meta.named_parameters() if p.requires_grad}
        for kinds in WEIGHTS.values():
            for kind in kinds:
                parts = [p for name, p in trained.items() if kind in name]
                assert parts and all(p.grad is not None and p.grad.isfinite().all() for p in parts)
        assert create_adapter("eftnet", model, rounds=1)(episode).logits.isfinite().all()
