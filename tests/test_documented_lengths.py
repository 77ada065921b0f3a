"""Lengths that the documentation states in steps are those that the configs give on the real lists."""

from __future__ import annotations

import csv
import gzip
import re
from pathlib import Path

import pytest

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.classes.split import class_split
from fewseg.dataset.lists.image_lists import ImageList
from fewseg.dataset.loading.batches import EpochBatches
from fewseg.dataset.shapes.files import draw_shapes
from fewseg.engine.setup.data import fold_of, training_data
from fewseg.engine.setup.protocols import list_of, training_protocol
from fewseg.engine.training.length import Length
from fewseg.util.config import Config, load_config
from tests.dataset.lists.areas import index_of

ROOT = Path(__file__).resolve().parent.parent
SCHEDULES = "config/_base_/schedule"
CLAIMS = {
    (f"{SCHEDULES}/oslsm.yaml", "60,000"): ("pascal/oslsm_vgg16",),
    (f"{SCHEDULES}/panet.yaml", "30,000"): (
        "pascal/panet_vgg16",
        "pascal/plnet_vgg16",
        "pascal/fsil_resnet50",
    ),
    (f"{SCHEDULES}/pmm.yaml", "200,000"): ("pascal/pmm_resnet50", "pascal/rpmm_resnet50"),
    (f"{SCHEDULES}/sgone.yaml", "100,000"): ("pascal/sgone_vgg16",),
    (f"{SCHEDULES}/mlc.yaml", "6,000"): ("pascal/mlc_resnet50", "pascal/mlc-reconstruction_resnet101"),
    (f"{SCHEDULES}/fss1000.yaml", "800,000"): ("fss1000/fss1000_vgg16",),
    ("docs/methods.md", "60,000"): ("pascal/oslsm_vgg16",),
    ("docs/methods.md", "30,000"): ("pascal/plnet_resnet50", "pascal/panet_resnet101", "pascal/fsil_vgg16"),
    ("docs/methods.md", "6,000"): ("pascal/mlc_resnet50",),
    ("docs/methods.md", "100,000"): ("pascal/sgone_vgg16",),
    ("docs/methods.md", "200,000"): ("pascal/pmm_vgg16",),
    ("docs/methods.md", "800,000"): ("fss1000/fss1000_vgg16",),
}
"""Document and statement -> the configs that it is about."""

MEASURED = "docs/benchmarks.md"
"""The page that reports measured runs with their own lengths."""

_STEPS = re.compile(r"((?:[\d,]+ to )?\d[\d,]*) (?:single )?(?:steps|iterations)\b")
_PUBLISHED = re.compile(r"published:?[^.]*$", re.IGNORECASE)


@pytest.fixture(scope="module")
def areas(shared: Path) -> dict[str, tuple[int, int, dict[int, int]]]:
    """The label areas of PASCAL's masks, by image."""
    found = {}
    with gzip.open(shared / "splits/pascal/class_areas.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            pairs = (pair.split(":") for pair in row["areas"].split())
            labels = {int(label): int(pixels) for label, pixels in pairs}
            found[row["image"]] = (int(row["height"]), int(row["width"]), labels)
    return found


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{Path(claim[0]).stem}-{claim[1]}")
def test_stated_lengths_are_those_of_the_configs(claim: tuple[str, str], areas: dict, shared: Path) -> None:
    document, stated = claim
    assert f"{stated} steps" in " ".join((ROOT / document).read_text().replace("\n#", " ").split())
    for name in CLAIMS[claim]:
        if name.startswith("fss1000"):
            found = [fss1000_steps(name, shared)]
        else:
            found = [pascal_steps(name, fold, areas, shared) for fold in range(4)]
        assert {f"{steps:,}" for steps in found} == {stated}, name


def test_no_other_length_is_stated() -> None:
    """What is neither published, nor measured, nor held against the configs above, is not to be stated."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "config").rglob("*.yaml")]
    for path in documents:
        document = path.relative_to(ROOT).as_posix()
        text = " ".join(path.read_text().replace("\n#", " ").split())
        for match in _STEPS.finditer(text):
            checked = (document, match[1]) in CLAIMS
            published = _PUBLISHED.search(text[: match.start()][-200:])
            assert checked or published or document == MEASURED, f"{document}: {match[0]}"


@pytest.mark.slow
def test_steps_of_shapes_are_those_of_the_quickstart(tmp_path: Path) -> None:
    draw_shapes(tmp_path, workers=1)
    text = (ROOT / "docs/benchmarks.md").read_text().replace("\n", " ")
    for name, stated in (("pspnet", "{} epochs of 37 steps"), ("bam", "{} of 74 steps")):
        lists = [f"{tmp_path}/ImageSets/Segmentation/{part}.txt" for part in ("train", "val")]
        opts = ["data_root", str(tmp_path), "train_list", lists[0], "val_list", lists[1]]
        config = load_config(ROOT / f"config/shapes/{name}_resnet18.yaml", opts)
        images = len(training_data(config, fold_of(config), 0))
        assert batches(config, images) == int(stated.split()[-2])
        assert stated.format(config.Train.epochs) in text


def pascal_steps(name: str, number: int, areas: dict, shared: Path) -> int:
    """Return the steps of a training of few-shot segmentation on PASCAL's published lists."""
    config = load_config(ROOT / f"config/{name}.yaml", ["split", str(number)])
    protocol, split = training_protocol(config), class_split("pascal", number)
    path = list_of(config, "train_images", protocol)
    merged, val = (
        [Path(line.split()[0]).stem for line in (shared / "splits/pascal" / file).read_text().splitlines()]
        for file in ("train_5953.txt", "val_1449.txt")
    )
    names = merged if path.name.startswith("voc_sbd_merge") else sorted(areas.keys() - set(val))
    assert len(names) in (5953, 10582)
    fold = Fold("pascal", number, split, protocol, ROOT, path, path)
    fold.__dict__["train_images"] = ImageList(ROOT, tuple(names), tuple(names), tuple(names))
    fold.__dict__["train_areas"] = index_of({name: areas[name] for name in names})
    return steps(config, len(fold.train_lists(config.Data.shot).queries))


def fss1000_steps(name: str, shared: Path) -> int:
    """Return the steps of a training on FSS-1000, whose training classes have ten images each."""
    config = load_config(ROOT / f"config/{name}.yaml")
    classes = (shared / "splits/hsnet/fss/trn.txt").read_text().split()
    return steps(config, 10 * len(classes))


def steps(config: Config, images: int) -> int:
    """Return the steps of a training."""
    return Length.of(config.Train, batches(config, images)).steps


def batches(config: Config, images: int) -> int:
    """Return the steps of an epoch."""
    return len(EpochBatches(images, config.Train.batch_size, 0, 1))
