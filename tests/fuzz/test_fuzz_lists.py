"""Lists of images, of classes and of folds that were damaged, or name what they should not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.classes.folds_file import read_folds
from fewseg.dataset.classes.own_names import read_class_names
from fewseg.dataset.classes.split import class_split
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.lists.hsnet_lists import read_hsnet_list
from fewseg.dataset.lists.image_lists import episode_lists, read_image_list
from fewseg.dataset.loading.store import ImageStore
from tests.fuzz.damage import ODD_TEXTS, damaged, damaged_text
from tests.fuzz.outcome import accepted, cases, generator

IMAGES = 24


@pytest.fixture(scope="module")
def root(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of a small data set, and a file beside it that no list may reach."""
    outside = tmp_path_factory.mktemp("outside")
    folder = outside / "data"
    names = (shapes / "ImageSets/Segmentation/train.txt").read_text().split()[:IMAGES]
    for part in ("JPEGImages", "SegmentationClass"):
        (folder / part).mkdir(parents=True)
        for name in names:
            source = next((shapes / part).glob(f"{name}.*"))
            shutil.copy(source, folder / part / source.name)
    shutil.copy(folder / f"SegmentationClass/{names[0]}.png", outside / "secret.png")
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    return folder


@pytest.mark.parametrize("number", cases(60))
def test_list_of_images(number: int, root: Path, tmp_path: Path) -> None:
    rng = generator("list", number)
    good = read_image_list(root, root / "list.txt")
    text = (
        "\n".join(good.names)
        if number % 2
        else "\n".join(map(" ".join, zip(good.images, good.masks, strict=True)))
    )
    path = tmp_path / "odd.txt"
    if number % 3 == 0:
        path.write_bytes(damaged(text.encode(), rng))
    elif number % 3 == 1:
        path.write_text(damaged_text(text, rng), errors="surrogatepass", newline="")
    else:
        odd = rng.choice(("../../secret.png", "../data/../../secret.png", "/etc/passwd", *ODD_TEXTS))
        image = rng.choice((odd, good.images[0]))
        path.write_text(f"{text}\n{image} {odd}\n", errors="surrogatepass", newline="")

    def read() -> None:
        images = read_image_list(root, path)
        for name in (*images.names, *images.images, *images.masks):
            assert name.isprintable(), f"a name with control characters: {name!r}"
            assert (root / name).resolve().is_relative_to(root.resolve()), f"{name} leaves the root"
        assert len(set(images.images)) == len(images), "an image twice under different names"
        lists = episode_lists(
            images, images.index(progress=False), class_split("shapes", 0), novel=True, shot=1, min_area=1
        )
        assert lists.queries
        store = ImageStore(images)
        for position in range(len(images)):
            store.pair(position)

    accepted(read, ("odd.txt", str(root)))


@pytest.mark.parametrize("number", cases(24))
def test_classes_and_folds(number: int, tmp_path: Path) -> None:
    rng = generator("classes", number)
    names = [f"class{i}" for i in range(1, 9)]
    text = ("\n".join(names), "class1, class2\nclass3, 4\n# note\nclass5\n")[number % 2]
    path = tmp_path / "odd.txt"
    if rng.random() < 0.4:
        path.write_bytes(damaged(text.encode(), rng))
    else:
        path.write_text(damaged_text(text, rng), errors="surrogatepass", newline="")

    def read() -> None:
        if number % 2 == 0:
            found = read_class_names(path)
            assert found[0] == "background" and len(found) >= 2
            assert all(name.isprintable() and name.strip() and len(name) <= 200 for name in found), found
        else:
            folds = read_folds(path, ["background", *names])
            tested = [c for fold in folds.novel for c in fold]
            assert len(set(tested)) == len(tested) and all(1 <= c < len(folds.names) for c in tested)
            assert all(folds.novel)

    accepted(read, ("odd.txt",))


@pytest.mark.parametrize("number", cases(16))
def test_lists_of_hsnet(number: int, root: Path, tmp_path: Path) -> None:
    rng = generator("hsnet", number)
    split = class_split("shapes", 0)
    fold = Fold(
        "shapes", 0, split, load_protocol("hsnet", "shapes"), root, root / "list.txt", root / "list.txt"
    )
    queries = [(name, rng.choice(split.novel)) for name in fold.val_images.names]
    if number % 2:
        text = "\n".join(f"{name}__{class_id}" for name, class_id in queries)
    else:
        images = {str(c - 1): [name for name, of in queries if of == c] for c in split.novel}
        content = {"path": "images/%s.jpg", "images": images, "folds": {"0": [c - 1 for c in split.novel]}}
        text = json.dumps(content, indent=1)
    path = tmp_path / "odd.txt"
    if rng.random() < 0.5:
        path.write_bytes(damaged(text.encode(), rng))
    else:
        path.write_text(damaged_text(text, rng), errors="surrogatepass", newline="")

    def read() -> None:
        lists, _ = read_hsnet_list(path, fold)
        assert lists.queries and set(lists.classes) <= set(split.novel)

    accepted(read, ("odd.txt",))
