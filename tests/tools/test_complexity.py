"""What networks cost: counted FLOPs against a formula, and the parts of an episode against the whole."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from fewseg.model import create_model
from fewseg.util.errors import UserError
from tools.complexity import costs_of, main
from tools.episode_parts import flops_of
from tools.timing import draw_episode

CONFIGS = Path(__file__).resolve().parents[2] / "config/shapes"
SMALL = {"backbone": "resnet18", "image_size": 65, "backbone_options": {"width": 8}}


def test_flops_of_a_convolution() -> None:
    layer = nn.Conv2d(3, 4, 5, padding=2)
    flops, result = flops_of(lambda: layer(torch.zeros(2, 3, 9, 7)))
    assert result.shape == (2, 4, 9, 7)
    assert flops == 2 * (2 * 4 * 9 * 7) * (3 * 5 * 5)  # two for each product, and the bias is free


@pytest.mark.parametrize(("method", "shot"), [("bam", 2), ("panet", 1), ("hsnet", 2)])
def test_the_parts_cost_as_much_as_the_whole(method: str, shot: int) -> None:
    model = create_model(method, shot=shot, **SMALL).eval()
    costs = costs_of(model, 65, shot, rounds=0)
    with torch.inference_mode():
        whole, _ = flops_of(lambda: model(draw_episode(65, shot)))
    assert costs.query + costs.supports + costs.decode == whole
    assert costs.seconds is None and costs.supports % shot == 0 < costs.supports


def test_parameters() -> None:
    model = create_model("bam", **SMALL, channels=16)
    costs = costs_of(model.eval(), 65, 1, rounds=1)
    frozen = [*model.backbone.parameters(), *model.base_head.parameters()]
    assert costs.parameters == sum(p.numel() for p in model.parameters())
    assert costs.parameters - costs.learnable == sum(p.numel() for p in frozen)
    assert costs.seconds > 0 and costs.peak > 0


def test_table_of_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([f"{CONFIGS}/sgone_resnet18.yaml", "--shots", "5", "1", "--rounds", "0", "--out", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "costs.csv").read_text().splitlines()))
    assert [(row["method"], row["side, px"], row["shot"]) for row in rows] == [
        ("sgone", "105", "1"),
        ("sgone", "105", "5"),
    ]
    one, five = ({name: row[f"{name}, GFLOPs"] for name in ("query", "supports", "decode")} for row in rows)
    assert five["query"] == one["query"] and five["decode"] == one["decode"]
    assert float(five["supports"]) == pytest.approx(5 * float(one["supports"]), abs=1e-3)
    assert [row["s / episode"] for row in rows] == ["-", "-"]
    assert "sgone   resnet18" in capsys.readouterr().out


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="--shots must be at least 1"):
        main([f"{CONFIGS}/sgone_resnet18.yaml", "--shots", "0"])
    with pytest.raises(UserError, match="pspnet"):
        main([f"{CONFIGS}/pspnet_resnet18.yaml", "--shots", "1", "--rounds", "0"])
