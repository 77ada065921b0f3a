"""Learning rates over a training."""

from __future__ import annotations

import pytest

from engine.optimisation import PolySchedule


def test_rate_drops_to_a_tenth_after_every_milestone():
    schedule = PolySchedule(1e-3, 6000, power=0, index_split=99, milestones=(0.333333, 0.666667))
    rates = [schedule.rates(step, 1)[0] for step in (1, 2000, 2001, 4000, 4001, 6000)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_drops_join_the_decay():
    plain, dropping = PolySchedule(0.1, 10), PolySchedule(0.1, 10, milestones=(0.5,))
    assert dropping.rates(5, 2) == plain.rates(5, 2)
    assert dropping.rates(6, 2) == pytest.approx([rate / 10 for rate in plain.rates(6, 2)])
