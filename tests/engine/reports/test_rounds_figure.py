"""The curve of an adaptation shows the figures of its result."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.engine.evaluation.measure import Measurement
from fewseg.engine.evaluation.record import record
from fewseg.engine.reports.figures.rounds import rounds_figure
from fewseg.util.results.folder import ResultFolder
from tests.util.results.test_result import make
from tests.util.results.test_rounds_table import adapted


def test_curve_and_bars_are_those_of_the_rounds() -> None:
    scores, chosen = rounds_figure(adapted()).axes
    curves = {line.get_label(): list(line.get_ydata()) for line in scores.lines}
    assert curves["mIoU"] == pytest.approx([65, 75, 85]) and curves["FB-IoU"] == pytest.approx([50] * 3)
    dashed = [list(line.get_ydata()) for line in scores.lines if line.get_linestyle() == "--"]
    assert dashed == [pytest.approx([65, 65]), pytest.approx([75, 75])]
    assert [bar.get_height() for bar in chosen.patches] == pytest.approx([0, 40, 60])


def test_it_lies_beside_the_result_of_an_adaptation_only(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    for result in (adapted(), make(variant="plain")):
        record(folder, Measurement(result, (), {}, None))
        drawn = {path.name for path in folder.pictures_of(folder.file_of(result)).glob("*")}
        assert drawn == ({"rounds.png", "rounds.pdf"} if result.rounds else set())
    record(folder, Measurement(adapted(checkpoint_hash="b"), (), {}, None))
    assert len([*(tmp_path / "earlier" / "pictures").rglob("rounds.*")]) == 2
