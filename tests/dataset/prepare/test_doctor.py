"""The data doctor finds everything at once."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.prepare.doctor import to_table
from fewseg.dataset.prepare.verify import verify
from fewseg.util.errors import DataError
from tools.prepare_data import main


@pytest.fixture
def ill(shapes, tmp_path):
    """Shapes with one case of each illness."""
    root = tmp_path / "ill"
    shutil.copytree(shapes, root)
    lists = {part: root / f"ImageSets/Segmentation/{part}.txt" for part in ("train", "val")}
    ids = {part: path.read_text().split() for part, path in lists.items()}
    image, mask = root / "JPEGImages", root / "SegmentationClass"
    train = iter(ids["train"])
    truncated = image / f"{next(train)}.png"
    truncated.write_bytes(truncated.read_bytes()[:300])
    (mask / f"{next(train)}.png").write_bytes(b"not a mask")
    name = next(train)
    Image.open(mask / f"{name}.png").crop((0, 0, 50, 60)).save(mask / f"{name}.png")
    name = next(train)
    Image.open(mask / f"{name}.png").convert("RGB").convert("L").save(mask / f"{name}.png")
    Image.fromarray(np.full((144, 144), 77, np.uint8)).save(mask / f"{next(train)}.png")
    Image.fromarray(np.full((144, 144), 255, np.uint8)).save(mask / f"{next(train)}.png")
    shutil.copy(image / f"{ids['val'][0]}.png", image / f"{next(train)}.png")
    (image / f"{ids['val'][1]}.png").unlink()
    with (root / "classes.txt").open("a") as names:
        names.write("unicorn\n")
    return root


def test_everything_is_found_in_one_run(ill):
    findings = {f.problem: f for f in verify("shapes", ill, workers=1) if f.serious}
    assert {problem: len(finding.where) for problem, finding in findings.items()} == {
        "image missing, corrupt or truncated": 2,
        "mask missing, corrupt, or no index image": 1,
        "mask of another size than its image": 1,
        "palette mask decoded to grey": 1,
        "label outside the classes 0..21 and 255": 1,
        "mask of nothing but void": 1,
        "class without a pixel in any list": 1,
        "same image in training and test": 1,
    }
    assert findings["class without a pixel in any list"].where == ("unicorn (21)",)
    table = to_table(list(findings.values()))
    assert all(finding.remedy in table and finding.where[0] in table for finding in findings.values())


def test_the_command_reports_and_leaves_with_status_1(ill, shapes, capsys, tmp_path):
    assert main(["shapes", "--root", str(ill), "--verify", "--workers", "1"]) == 1
    assert "palette mask decoded to grey" in capsys.readouterr().out
    for name in ("a", "b", "c", "dragon"):
        with (ill / "classes.txt").open("a") as names:
            names.write(f"{name}\n")
    assert main(["shapes", "--root", str(ill), "--verify", "--workers", "1"]) == 1
    short = capsys.readouterr().out
    assert "(and 2 more)" in short and "dragon" not in short
    assert main(["shapes", "--root", str(ill), "--verify", "--all", "--workers", "1"]) == 1
    full = capsys.readouterr().out
    assert "more)" not in full and "dragon (25)" in full
    assert main(["shapes", "--root", str(shapes), "--verify", "--workers", "1"]) == 0
    assert main(["shapes", "--root", str(tmp_path / "nowhere"), "--verify"]) == 2
    assert "prepare the data set first" in capsys.readouterr().err


def test_a_root_of_another_data_set_is_refused(tmp_path):
    (tmp_path / ".fewseg").mkdir()
    (tmp_path / ".fewseg/prepared.json").write_text('{"data_set": "coco", "lists": {}}')
    with pytest.raises(DataError, match="holds coco, not pascal"):
        verify("pascal", tmp_path)
