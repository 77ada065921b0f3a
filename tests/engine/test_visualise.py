"""test.py --visualise draws the right episodes after the test, and links them from the report."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fewseg.engine.reports.figures.cases import choose_cases, episode_ious
from fewseg.util.results.episode_counts import read_counts


def test_figures_of_a_test_show_its_best_and_worst_episodes(script, weights, command, tmp_path):
    weights(1)
    script.main(command("--seeds", "1", "2"))
    out = tmp_path / "out"
    (file,) = out.glob("*shot*.json")
    folder, measured = out / "figures" / file.stem, file.stat().st_mtime_ns
    assert not folder.exists() and "Figures of" not in (out / "report.html").read_text()

    script.main(command("--seeds", "1", "2", "--visualise", "1"))
    assert file.stat().st_mtime_ns == measured  # drawn from the counts, not measured again
    names = ["best", "best_1", "worst", "worst_1", "typical", "typical_1", "encodings_tsne", "encodings_pca"]
    assert {path.name for path in folder.iterdir()} == {
        "index.html",
        *(f"{name}.{kind}" for name in names for kind in ("png", "pdf")),
    }
    page = (folder / "index.html").read_text()
    assert all(f'src="{name}.png"' in page for name in names)
    ious = episode_ious(read_counts(file.with_suffix(".npz")))
    told = [float(value) for value in re.findall(r"<p>[^<]*: IoU ([\d.]+)%", page)]
    assert told == pytest.approx([100 * case.iou for case in choose_cases(ious, 1)], abs=0.06)
    assert told[0] == pytest.approx(100 * np.max(ious), abs=0.06)
    assert f'href="figures/{file.stem}/index.html"' in (out / "report.html").read_text()
