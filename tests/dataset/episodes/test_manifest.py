"""Episodes: the published draws, purity, manifests."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from dataclasses import replace

import pytest

from fewseg.dataset.classes.split import class_split
from fewseg.dataset.episodes import manifest as episodes
from fewseg.dataset.episodes.manifest import test_episodes as draw_episodes
from fewseg.dataset.episodes.sampling import draw_for_query, draw_supports
from fewseg.dataset.lists.image_lists import EpisodeLists, ImageList, episode_lists, generalized_lists
from fewseg.dataset.reading.mask import read_mask
from fewseg.dataset.reading.transform import Resize
from fewseg.util.errors import DataError
from tests.dataset.lists.areas import areas_of
from tests.parity.cases import load_case


@pytest.fixture
def lists(tmp_path):
    """Ten images, classes 1 and 2 in nearly all, class 3 in four."""
    names = tuple(f"image{i}" for i in range(10))
    source = ImageList(tmp_path, names, names, names)
    supports = {1: tuple(range(10)), 2: tuple(range(1, 10)), 3: (0, 2, 4, 6)}
    candidates = tuple(tuple(c for c in supports if i in supports[c]) for i in range(10))
    return EpisodeLists(source, (1, 2, 3), tuple(range(10)), candidates, supports)


def manifest(lists, **changes):
    arguments = {"data_set": "pascal", "fold": 0, "protocol": "bam", "seed": 3, "shot": 2, "episodes": 25}
    return episodes.test_episodes(lists, **(arguments | changes))


def assert_valid(lists, spec, shot):
    position = lists.source.position
    for class_id, supports in zip(spec.class_ids, spec.supports, strict=True):
        assert len(set(supports)) == shot and spec.query not in supports
        assert {position[s] for s in supports} <= set(lists.supports[class_id])


@pytest.mark.parity
def test_the_recorded_episodes_come_out_of_the_recorded_seeds(parity_set):
    source, areas = parity_set
    recorded = load_case("data", "episodes")[1].meta["episodes"]
    compared = 0
    for case, wanted in recorded.items():
        fold, mode, shot = int(case[5]), case.split("_")[1], int(case.split("_")[2][0])
        split = class_split("pascal", fold)
        for want in wanted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                lists = episode_lists(
                    source, areas, split, novel=mode == "val", shot=0, drop_unwanted=mode == "train"
                )
            number = lists.queries.index(want["query"])
            spec = draw_for_query(lists, number, shot, random.Random(want["python_random_seed"]))
            wanted_classes = split.novel if mode == "val" else split.base
            assert spec.class_ids == (wanted_classes[want["class_index"]],)
            for name, (size, positives) in zip(
                spec.supports[0], want["sampled_supports_hw_and_positives"], strict=True
            ):
                mask = read_mask(source.root / source.masks[source.position[name]])
                assert list(mask.shape) == size
                assert int((mask == spec.class_ids[0]).sum()) == positives
            compared += 1
    assert compared == 31


@pytest.mark.parity
def test_the_recorded_generalised_episodes_come_out_of_the_recorded_seeds(parity_set):
    source, areas = parity_set
    recorded = load_case("data", "episodes")[1].meta["gfss_episodes"]
    resize = Resize(73)
    for case, wanted in recorded.items():
        split = class_split("pascal", int(case[5]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lists = generalized_lists(source, areas, split, shot=0)
        # The recorded draws are among all novel classes, those without images included.
        has_base = [bool(set(areas_of(areas, i)) & set(split.base)) for i in range(len(source))]
        pairs = zip(has_base, lists.candidates, strict=True)
        candidates = tuple(split.novel if any_class else shown for any_class, shown in pairs)
        lists = replace(lists, candidates=candidates)
        for want in wanted:
            spec = draw_for_query(lists, want["query"], 1, random.Random(want["python_random_seed"]))
            assert spec.class_ids == (split.novel[want["class_index"]],)
            mask = read_mask(source.root / source.masks[source.position[spec.supports[0][0]]])
            assert int((resize.label(mask) == spec.class_ids[0]).sum()) == want["support_positive_pixels"]


def test_train_episodes_are_a_pure_function_of_seed_epoch_and_index(lists):
    def epoch(seed, number, order):
        drawn = {i: episodes.train_episode(lists, 2, seed, number, i) for i in order}
        return [drawn[i] for i in range(10)]

    first = epoch(1, 0, range(10))
    assert first == epoch(1, 0, reversed(range(10)))
    assert first != epoch(1, 1, range(10)) and first != epoch(2, 0, range(10))
    assert sorted(spec.query for spec in first) == sorted(lists.source.names)
    for spec in first:
        assert_valid(lists, spec, 2)


def test_a_known_train_episode_never_changes(lists):
    spec = episodes.train_episode(lists, 2, 321, 4, 7)
    assert spec == episodes.EpisodeSpec("image3", (1,), (("image9", "image0"),))


def test_a_train_episode_takes_the_next_number_of_its_order_unless_told_which(lists):
    order = episodes.train_order(10, 1, 2)
    for index in range(10):
        spec = episodes.train_episode(lists, 2, 1, 2, index)
        assert spec.query == f"image{order[index]}" and len(spec.class_ids) == 1
        assert episodes.train_episode(lists, 2, 1, 2, index, query_index=order[index]) == spec
        assert episodes.train_episode(lists, 2, 1, 2, index, query_index=7).query == "image7"


ORDERS = ("list", "uniform", "class", "pairs", "in_turn")


@pytest.mark.parametrize("query_order", ORDERS)
@pytest.mark.parametrize("ways", [1, 2])
def test_every_query_order_gives_valid_episodes(lists, query_order, ways):
    drawn = manifest(lists, query_order=query_order, ways=ways)
    assert len(drawn) == 25
    for spec in drawn:
        assert len(set(spec.class_ids)) == ways
        assert lists.source.position[spec.query] in lists.supports[spec.class_ids[0]]
        assert_valid(lists, spec, 2)


def test_queries_follow_the_list_or_the_pairs(lists):
    assert [spec.query for spec in manifest(lists)] == [f"image{i % 10}" for i in range(25)]
    pairs = [(spec.query, spec.class_ids[0]) for spec in manifest(lists, query_order="pairs")]
    assert pairs[:4] == [("image0", 1), ("image0", 3), ("image1", 1), ("image1", 2)]
    with pytest.raises(DataError, match="query_order sorted: known are list"):
        manifest(lists, query_order="sorted")


def plain_episode(lists, order, index, shot, repeat=False):
    """The query's number and the class of an episode of seed 3, and its supports, drawn step by step."""
    digest = hashlib.sha256(f"test/3/{index}".encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    shown = [[c for c in (1, 2, 3) if query in lists.supports[c]] for query in range(10)]
    if order in ("list", "uniform"):
        query = index % 10 if order == "list" else rng.randrange(10)
        class_id = shown[query][rng.randint(1, len(shown[query])) - 1]
    elif order in ("class", "in_turn"):
        class_id = rng.choice((1, 2, 3)) if order == "class" else 1 + index % 3
        query = rng.choice(lists.supports[class_id])
    else:
        pairs = [(query, c) for query in range(10) for c in shown[query]]
        query, class_id = pairs[index % len(pairs)]
    supports, pool = [], lists.supports[class_id]
    while len(supports) < shot:
        rng.randint(1, len(pool))
        support = query
        while support == query or (support in supports and not repeat):
            support = pool[rng.randint(1, len(pool)) - 1]
        supports.append(support)
    return f"image{query}", (class_id,), (tuple(f"image{support}" for support in supports),)


@pytest.mark.parametrize("query_order", ORDERS)
def test_test_episodes_are_drawn_as_a_plain_loop_draws_them(lists, query_order):
    drawn = manifest(lists, query_order=query_order, episodes=60)
    wanted = [plain_episode(lists, query_order, index, 2) for index in range(60)]
    assert [(spec.query, spec.class_ids, spec.supports) for spec in drawn] == wanted
    assert episodes.QUERY_ORDERS == ORDERS


def test_supports_may_repeat_where_the_protocol_says_so(lists):
    drawn = manifest(lists, query_order="in_turn", repeat_supports=True, shot=3, episodes=60)
    wanted = [plain_episode(lists, "in_turn", index, 3, repeat=True) for index in range(60)]
    assert [(spec.query, spec.class_ids, spec.supports) for spec in drawn] == wanted
    assert [spec.class_ids[0] for spec in drawn[:4]] == [1, 2, 3, 1]
    assert any(len(set(spec.supports[0])) < 3 for spec in drawn)
    assert all(spec.query not in spec.supports[0] for spec in drawn)


def test_a_manifest_says_what_it_was_drawn_for_and_its_file_is_plain_json(lists, tmp_path):
    named = replace(lists, source=replace(lists.source, names=tuple(f"Größe {i}" for i in range(10))))
    drawn = draw_episodes(named, data_set="own", fold=2, protocol="pfenet", seed=3, shot=1, episodes=3)
    header = {"data_set": "own", "fold": 2, "protocol": "pfenet", "seed": 3, "shot": 1, "ways": 1}
    header |= {"query_order": "list", "generalized": False}
    assert drawn.header == header
    rows = [
        {"class_ids": list(spec.class_ids), "query": spec.query, "supports": [list(spec.supports[0])]}
        for spec in drawn
    ]

    def line(value):
        return (
            json.dumps(dict(sorted(value.items())), ensure_ascii=False).replace(": ", ":").replace(", ", ",")
        )

    text = "\n".join(line(value) for value in (header, *rows))
    assert drawn.hash == hashlib.sha256(text.encode()).hexdigest()
    assert drawn.header == header  # the hash, which is kept once it is computed, is no part of it
    drawn.write(tmp_path / "episodes.jsonl")
    lines = [line(header | {"hash": drawn.hash}), *map(line, rows)]
    assert (tmp_path / "episodes.jsonl").read_text(encoding="utf-8") == "\n".join(lines) + "\n"
    assert drawn[1] == drawn.episodes[1] and len(drawn) == 3


def test_the_first_episodes_do_not_depend_on_how_many_follow(lists):
    assert manifest(lists, episodes=5).episodes == manifest(lists).episodes[:5]


def test_a_manifest_survives_the_disk_and_tells_when_it_was_edited(lists, tmp_path):
    drawn = manifest(lists)
    drawn.write(tmp_path / "episodes.jsonl")
    assert episodes.read_manifest(tmp_path / "episodes.jsonl") == drawn
    assert drawn.hash == manifest(lists).hash != manifest(lists, seed=4).hash
    text = (tmp_path / "episodes.jsonl").read_text()
    (tmp_path / "episodes.jsonl").write_text(text.replace('"image3"', '"image4"', 1))
    with pytest.raises(DataError, match="the file was edited"):
        episodes.read_manifest(tmp_path / "episodes.jsonl")
    for content in ("", "{}\n", "no json\n", "[]\n"):
        (tmp_path / "other.jsonl").write_text(content)
        with pytest.raises(DataError, match="no manifest of episodes"):
            episodes.read_manifest(tmp_path / "other.jsonl")


def test_too_few_supports_are_an_error_instead_of_an_endless_loop():
    assert sorted(draw_supports((4, 5, 6), 9, 3, random.Random(0))) == [4, 5, 6]
    with pytest.raises(DataError, match="3 supports are wanted"):
        draw_supports((4, 5, 6), 5, 3, random.Random(0))


def test_more_ways_than_classes_are_refused(lists):
    with pytest.raises(DataError, match="ways 4: the fold has 3 classes"):
        manifest(lists, ways=4)
