"""The table of all methods: who is in it, what its rows hold, and that a second run reuses the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.util.errors import ConfigError
from tools.all_methods import COLUMNS, main, parse_arguments, variants

COMMON = """
Data: {{data_set: shapes, data_root: {root}, val_list: {root}/ImageSets/Segmentation/train.txt,
       train_h: 65, train_w: 65, val_size: 65}}
Train: {{batch_size: 20, batch_size_val: 8, epochs: 1, workers: 0, optimizer: adamw,
         save_path: {folder}/base}}
Method: {{arch: {arch}, backbone: resnet18, backbone_options: {{width: 8}}, pretrained: none,
         base_weight: {folder}/base/best.safetensors}}
Test_Finetune: {{panels: 0}}
"""


@pytest.fixture
def configs(shapes: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    for arch in ("pspnet", "panet", "pfenet"):
        text = COMMON.format(root=shapes, folder=tmp_path, arch=arch)
        (folder / f"{arch}_resnet18.yaml").write_text(text)
    return folder


def described(configs: Path, *arguments: str) -> list[tuple[str, str]]:
    given = parse_arguments(["--configs", str(configs), *arguments])
    return [(variant.method, variant.parts) for variant in variants(given)]


def test_variants_leave_out_what_cannot_be_composed(configs):
    assert described(configs) == [("panet", "-"), ("pfenet", "-")]
    assert described(configs, "--variants", "composed") == [("pfenet", "base + ensemble")]
    assert described(configs, "--methods", "panet", "--variants", "adapted") == [("panet", "- + eftnet")]
    with pytest.raises(ConfigError, match=r"--methods bam: .* has configs of"):
        described(configs, "--methods", "bam")


def test_trains_tests_and_tabulates_once(configs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    arguments = ["--configs", str(configs), "--methods", "panet", "--epochs", "1", "--episodes", "3"]
    main([*arguments, "--out", str(out)])
    table = (out / "table.md").read_text()
    assert table == capsys.readouterr().out
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert tuple(head) == COLUMNS
    assert [row[0] for row in rows] == ["panet", "every object", "support mask copied", "untrained panet"]
    assert all(float(cell) > 0 for cell in rows[0][2:6])
    written = (out / "panet_resnet18/published/last.safetensors").stat().st_mtime_ns
    main([*arguments, "--out", str(out)])
    assert capsys.readouterr().out == table
    assert (out / "panet_resnet18/published/last.safetensors").stat().st_mtime_ns == written
