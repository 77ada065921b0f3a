"""The benchmark of the adaptation: both ways of encoding give the same prediction."""

from __future__ import annotations

import pytest

from fewseg.model.adapt.episode import AdaptedEpisode
from tools.benchmark import main
from tools.benchmarks.adapt import ReEncodedEpisode


def test_encoding_anew_gives_the_same_logits(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        ["adapt", "--arch", "bam", "--backbone", "resnet18", "--size", "65", "--shots", "1", "--updates", "1"]
    )
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("bam resnet18 65 px 1-shot: plain ")
    assert float(line.rpartition(" ")[2]) < 1e-5
    overridden = {name for name in vars(ReEncodedEpisode) if callable(getattr(ReEncodedEpisode, name))}
    assert overridden - vars(AdaptedEpisode).keys() == {"_encoded"}  # all others replace a step of ours
