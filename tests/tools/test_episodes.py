"""Manifests from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.dataset.episodes.manifest import read_manifest
from fewseg.util.errors import DataError, UserError
from tools.episodes import main


@pytest.fixture
def config(shapes: Path, tmp_path: Path) -> Path:
    path = tmp_path / "shapes.yaml"
    lists = f"val_list: {shapes}/ImageSets/Segmentation/train.txt"
    data = f"{{data_set: shapes, data_root: {shapes}, {lists}, protocol_options: {{min_area: 1}}}}"
    path.write_text(f"Data: {data}\nMethod: {{arch: bam}}\n")
    return path


def write(config: Path, folder: Path, *more: object) -> list[Path]:
    options = ("--config", config, "--out", folder, "--seeds", 1, 2, "--episodes", 7, *more)
    main(["write", *map(str, options)])
    return sorted(folder.glob("*.jsonl"))


def test_a_file_per_fold_shot_and_seed(config: Path, tmp_path: Path) -> None:
    files = write(config, tmp_path / "a", "--folds", 0, 1, "--shots", 1, 2)
    assert len(files) == 8 and files[0].name == "shapes_bam_fold0_1shot_seed1.jsonl"
    assert [len(read_manifest(file)) for file in files] == [7] * 8
    again = write(config, tmp_path / "b", "--folds", 0, 1, "--shots", 1, 2)
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_show_says_what_a_file_holds(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = write(config, tmp_path / "a", "--protocol", "hsnet")[0]
    capsys.readouterr()
    main(["show", str(file), "--first", "2"])
    shown = capsys.readouterr().out
    assert "protocol hsnet" in shown and "query_order pairs" in shown and "7 episodes of" in shown
    assert read_manifest(file).hash in shown and shown.splitlines()[-1].startswith("2: ")


def test_verify_names_every_wrong_file(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = write(config, tmp_path / "a", "--generalized")
    main(["verify", *map(str, files), "--config", str(config)])
    assert capsys.readouterr().out.count("7 episodes, in order") == 2
    files[0].write_text(files[0].read_text().replace("[1]", "[2]", 1).replace('"seed":1', '"seed":9'))
    with pytest.raises(UserError, match=f"1 of 2 manifests are wrong: {files[0]}"):
        main(["verify", *map(str, files)])
    assert "the file was edited" in capsys.readouterr().err


def test_a_fixed_list_of_another_data_set_is_refused(config: Path, tmp_path: Path) -> None:
    (tmp_path / "fold0.txt").write_text("2007_000033__01\n")
    with pytest.raises(DataError, match="2007_000033 is not in"):
        write(config, tmp_path / "a", "--hsnet-list", tmp_path / "fold{fold}.txt")
