"""What episodes draw from, against plain loops over made-up label areas, at the bounds of every rule."""

from __future__ import annotations

import random
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from fewseg.dataset.classes.split import ClassSplit, class_split
from fewseg.dataset.lists.area_index import AreaIndex
from fewseg.dataset.lists.image_lists import (
    MIN_AREA,
    EpisodeLists,
    ImageList,
    check_labels,
    episode_lists,
    generalized_lists,
)
from fewseg.util.errors import DataError
from tests.dataset.lists.areas import index_of

Areas = list[dict[int, int]]


def source_of(root: Path, areas: Areas) -> tuple[ImageList, AreaIndex]:
    names = tuple(f"m{number}" for number in range(len(areas)))
    index = index_of({name: (9, 9, found) for name, found in zip(names, areas, strict=True)})
    return ImageList(root, names, names, names), index


def made_up(seed: int, images: int = 150) -> Areas:
    """Areas around the published least one; a third of the images shows the classes 1 to 5 only."""
    rng = random.Random(seed)
    made = []
    for number in range(images):
        classes = rng.sample(range(1, 6 if number % 3 == 0 else 21), rng.randint(1, 3))
        areas = {c: rng.choice((1, 2, 2047, 2048, 2049, 9000)) for c in classes}
        made.append({0: 40, 255: 7} | areas)
    return made


def by_hand(
    areas: Areas, wanted: tuple[int, ...], other: tuple[int, ...], shot: int, min_area: int
) -> tuple[tuple[int, ...], dict[int, list[int]], list[int], list[tuple[int, ...]]]:
    """Return classes, supports, queries and candidates; no image shows a class of ``other``."""
    supports: dict[int, list[int]] = {}
    for class_id in wanted:
        listed = []
        for number, found in enumerate(areas):
            unwanted = any(c in found for c in other)
            if class_id in found and found[class_id] >= min_area and not unwanted:
                listed.append(number)
        if len(listed) > shot:
            supports[class_id] = listed
    queries = [i for i in range(len(areas)) if any(i in listed for listed in supports.values())]
    candidates = [tuple(c for c in supports if c in areas[i]) for i in queries]
    return tuple(supports), supports, queries, candidates


def assert_lists(lists: EpisodeLists, wanted: tuple) -> None:
    classes, supports, queries, candidates = wanted
    assert lists.classes == classes and lists.queries == tuple(queries)
    assert {c: list(images) for c, images in lists.supports.items()} == supports
    assert lists.candidates == tuple(candidates)
    pairs = [(i, c) for i in queries for c in classes if i in supports[c]]
    assert list(lists.pairs) == pairs


@pytest.mark.filterwarnings("ignore:.*left out of this fold's episodes")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fold", range(4))
def test_the_lists_of_a_fold_equal_those_of_a_plain_loop(tmp_path: Path, seed: int, fold: int) -> None:
    areas, split = made_up(seed), class_split("pascal", fold)
    source, index = source_of(tmp_path, areas)
    for shot in (1, 3):
        for least, rule in ((2048, {}), (1, {"min_area": 0}), (1, {"min_area": 1}), (3, {"min_area": 3})):
            rule = {"shot": shot, "small_classes": "leave_out", **rule}
            found = episode_lists(source, index, split, novel=True, **rule)
            assert_lists(found, by_hand(areas, split.novel, (), shot, least))
            found = episode_lists(source, index, split, novel=False, **rule)
            assert_lists(found, by_hand(areas, split.base, (), shot, least))
        if fold:  # a third of the images shows nothing but classes of fold 0
            found = episode_lists(
                source, index, split, novel=False, shot=1, drop_unwanted=True, small_classes="leave_out"
            )
            assert_lists(found, by_hand(areas, split.base, split.novel, 1, 2048))
    assert MIN_AREA == 2 * 32 * 32 == 2048


@pytest.mark.filterwarnings("ignore:.*left out of this fold's episodes")
@pytest.mark.parametrize("seed", range(3))
def test_generalised_lists_equal_those_of_a_plain_loop(tmp_path: Path, seed: int) -> None:
    areas, split = made_up(seed, 40), class_split("pascal", 0)
    source, index = source_of(tmp_path, [*areas, {0: 5}])
    lists = generalized_lists(source, index, split, shot=1, small_classes="leave_out")
    classes, supports, _, _ = by_hand(areas, split.novel, (), 1, 1)
    assert lists.classes == classes and lists.queries == tuple(range(41))
    assert {c: list(images) for c, images in lists.supports.items()} == supports
    for found, candidates in zip([*areas, {0: 5}], lists.candidates, strict=True):
        has_base = any(c in found for c in split.base)
        shown = tuple(c for c in classes if c in found)
        assert candidates == (classes if has_base or not shown else shown)


def test_a_class_needs_one_image_more_than_supports(tmp_path: Path) -> None:
    source, index = source_of(tmp_path, [{1: 1}, {1: 1}, {2: 1}, {2: 1}, {2: 1}])
    split = ClassSplit((1, 2, 3), (), ("background", "cat", "dog", "cow"))
    rule = {"novel": True, "min_area": 1}
    message = f"{tmp_path}: a 2-shot episode needs 3 images of a class, but cat (1) has 2, cow (3) has 0"
    with pytest.raises(DataError, match=re.escape(message)):
        episode_lists(source, index, split, shot=2, **rule)
    with pytest.raises(DataError, match=re.escape(message)):
        generalized_lists(source, index, split, shot=2)
    with pytest.warns(UserWarning) as warned:
        lists = episode_lists(source, index, split, shot=2, small_classes="leave_out", **rule)
    assert [str(warning.message) for warning in warned] == [f"{message}: left out of this fold's episodes"]
    assert warned[0].filename == __file__ and lists.classes == (2,)
    with pytest.raises(DataError, match=r"min_area$"):
        episode_lists(source, index, split, shot=3, **rule)
    message = f"{tmp_path}: a 1-shot episode needs 2 images of a class, but cow (3) has 0"
    with pytest.warns(UserWarning, match=re.escape(message)):
        assert episode_lists(source, index, split, shot=1, **rule).classes == (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full = ClassSplit((1, 2), (), ("background", "cat", "dog"))
        assert episode_lists(source, index, full, shot=1, **rule).classes == (1, 2)


def test_every_mask_with_a_label_beyond_the_classes_counts_once(tmp_path: Path) -> None:
    areas = [{0: 1, 7: 1, 255: 4}, {3: 1}, {0: 1, 7: 2}, {8: 1, 12: 1, 255: 2}, {1: 1}, {30: 1}]
    rest = "lies outside the classes 0..7 and 255{}; a palette mask decoded to grey looks like this"
    for last, more in ((6, " (and 1 more masks)"), (5, "")):
        _, index = source_of(tmp_path, areas[:last])
        with pytest.raises(DataError) as raised:
            check_labels(index, 7, tmp_path)
        assert str(raised.value) == f"{tmp_path / 'm3'}: label 8 {rest.format(more)}"
    _, index = source_of(tmp_path, [{9: 1}, {1: 1}])
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / 'm0'))}: label 9 lies"):
        check_labels(index, 7, tmp_path)
    _, index = source_of(tmp_path, areas[:3])
    check_labels(index, 7, tmp_path)
    with pytest.raises(DataError, match="m0: label 7 lies outside"):
        episode_lists(
            source_of(tmp_path, areas)[0], index, class_split("own", 0, names="abcdef"), novel=True, shot=1
        )


def test_every_mask_of_nothing_but_void_counts(tmp_path: Path) -> None:
    areas = [{1: 4}, {0: 1, 255: 8}, {255: 9}, {2: 3, 255: 1}, {255: 1}]
    for last, more in ((5, " (and 1 more masks)"), (4, "")):
        _, index = source_of(tmp_path, areas[:last])
        with pytest.raises(DataError) as raised:
            check_labels(index, 2, tmp_path)
        assert (
            str(raised.value) == f"{tmp_path / 'm2'}: every pixel is void{more}; take the image off the list"
        )
    check_labels(source_of(tmp_path, areas[:2])[1], 2, tmp_path)


def test_where_the_list_tells_the_class_it_stands_for_the_ones_of_a_mask(tmp_path: Path) -> None:
    plain = ImageList(tmp_path, ("a", "b"), ("a.jpg", "b.jpg"), ("a.png", "b.png"))
    told = ImageList(tmp_path, plain.names, plain.images, plain.masks, (300, 2))
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    assert plain.with_class_id(0, mask) is mask
    assert told.with_class_id(0, mask).tolist() == [[0, 300, 2, 255]]
    assert told.with_class_id(1, mask).dtype == np.uint16
