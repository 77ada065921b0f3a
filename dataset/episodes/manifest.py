"""The episodes of a run: each depends only on a seed and an index, not on loader workers or restarts.

A manifest is the list of a test run's episodes, drawn beforehand and the same for every method. Its file is
JSON lines: first what it was drawn for and the SHA-256 of everything else, then one episode per line.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from fewseg.dataset.episodes.sampling import EpisodeSpec, complete, draw_for_query, generator
from fewseg.dataset.lists.image_lists import EpisodeLists
from fewseg.util.errors import DataError
from fewseg.util.files import read_text, write_text

QUERY_ORDERS = ("list", "uniform", "class", "pairs", "in_turn")


def train_order(length: int, seed: int, epoch: int) -> list[int]:
    """Return the indices 0..length-1 in the order of an epoch."""
    order = list(range(length))
    generator("order", seed, epoch).shuffle(order)
    return order


def train_episode(
    lists: EpisodeLists,
    shot: int,
    seed: int,
    epoch: int,
    index: int,
    *,
    ways: int = 1,
    query_index: int | None = None,
) -> EpisodeSpec:
    """Return the ``index``-th episode of an epoch.

    Args:
        query_index: position of the query in ``lists.queries``, if the caller already has the epoch's order.
    """
    if query_index is None:
        query_index = train_order(len(lists.queries), seed, epoch)[index]
    return draw_for_query(lists, query_index, shot, generator("train", seed, epoch, index), ways)


@dataclass(frozen=True)
class Manifest:
    """The test episodes of one seed.

    Attributes:
        data_set, fold, protocol, seed, shot, ways: the settings that the episodes were drawn for.
        query_order: the rule by which queries were chosen, one of QUERY_ORDERS.
        generalized: whether they are episodes of generalised few-shot segmentation.
        episodes: the episodes in order.
    """

    data_set: str
    fold: int
    protocol: str
    seed: int
    shot: int
    ways: int
    query_order: str
    generalized: bool
    episodes: tuple[EpisodeSpec, ...]

    @property
    def header(self) -> dict[str, str | int | bool]:
        """The settings that the episodes were drawn for."""
        return {key: value for key, value in self.__dict__.items() if key not in ("episodes", "hash")}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the header and the episodes."""
        lines = (_canonical(self.header), *(_canonical(asdict(episode)) for episode in self.episodes))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.episodes)

    def __iter__(self) -> Iterator[EpisodeSpec]:
        return iter(self.episodes)

    def __getitem__(self, index: int) -> EpisodeSpec:
        return self.episodes[index]

    def write(self, path: str | Path) -> None:
        """Write the manifest as JSON lines."""
        lines = (
            _canonical(self.header | {"hash": self.hash}),
            *(_canonical(asdict(e)) for e in self.episodes),
        )
        write_text(path, "\n".join(lines) + "\n", DataError)


def test_episodes(
    lists: EpisodeLists,
    *,
    data_set: str,
    fold: int,
    protocol: str,
    seed: int,
    shot: int,
    episodes: int,
    ways: int = 1,
    query_order: str = "list",
    repeat_supports: bool = False,
    generalized: bool = False,
) -> Manifest:
    """Draw the test episodes of one seed.

    Args:
        lists: the fold's test lists; for ``generalized`` those of ``generalized_lists``.
        data_set, fold, protocol: written into the manifest; ``lists`` already follow them.
        seed: one of the protocol's seeds.
        shot, ways: supports per class, classes per episode.
        episodes: number of episodes.
        query_order: ``list`` repeats the list in order and draws one of the classes that the query shows.
            ``uniform`` draws the query, then a class in the same way. ``class`` draws a class, then an image
            listed for it. ``pairs`` repeats all pairs of an image and a class that it is listed for.
            ``in_turn`` takes the classes in turn, and draws an image listed for the class.
        repeat_supports: draw supports one by one, each different from the query only.
        generalized: written into the manifest.
    """
    if query_order not in QUERY_ORDERS:
        raise DataError(f"query_order {query_order}: known are {', '.join(QUERY_ORDERS)}")
    specs = tuple(
        _test_episode(lists, query_order, index, shot, generator("test", seed, index), ways, repeat_supports)
        for index in range(episodes)
    )
    return Manifest(data_set, fold, protocol, seed, shot, ways, query_order, generalized, specs)


def _test_episode(
    lists: EpisodeLists, query_order: str, index: int, shot: int, rng: random.Random, ways: int, repeat: bool
) -> EpisodeSpec:
    if query_order == "list":
        return draw_for_query(lists, index % len(lists.queries), shot, rng, ways, repeat)
    if query_order == "uniform":
        return draw_for_query(lists, rng.randrange(len(lists.queries)), shot, rng, ways, repeat)
    if query_order == "pairs":
        query, class_id = lists.pairs[index % len(lists.pairs)]
        return complete(lists, query, class_id, shot, rng, ways, repeat)
    in_turn = query_order == "in_turn"
    class_id = lists.classes[index % len(lists.classes)] if in_turn else rng.choice(lists.classes)
    return complete(lists, rng.choice(lists.supports[class_id]), class_id, shot, rng, ways, repeat)


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest and check its hash.

    Raises:
        DataError: the file is missing, is not a manifest, or was changed after it was written.
    """
    lines = read_text(path, "the manifest").splitlines()
    try:
        header, *rows = [json.loads(line) for line in lines]
        claimed = header.pop("hash")
        specs = tuple(_spec(row) for row in rows)
        manifest = Manifest(**header, episodes=specs)
        if not _is_well_typed(manifest):
            raise ValueError
        hashed = manifest.hash
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{path}: this is no manifest of episodes; write one with tools/episodes.py"
        ) from None
    if hashed != claimed:
        raise DataError(f"{path}: the episodes do not fit their hash: the file was edited; write it anew")
    return manifest


def _is_well_typed(manifest: Manifest) -> bool:
    """Whether fields have exactly their types: ``True`` and ``1.0`` equal 1, but are not class ids."""
    hints = get_type_hints(Manifest)
    header = all(type(value) is hints[key] for key, value in manifest.header.items())
    counts = (
        all(getattr(manifest, key) >= 0 for key in ("fold", "seed")) and manifest.shot * manifest.ways > 0
    )
    names = (n for spec in manifest for n in (spec.query, *(name for way in spec.supports for name in way)))
    ids = (class_id for spec in manifest for class_id in spec.class_ids)
    known = header and counts and manifest.query_order in QUERY_ORDERS
    return known and all(type(name) is str for name in names) and all(type(i) is int for i in ids)


def _spec(row: dict[str, Any]) -> EpisodeSpec:
    return EpisodeSpec(row["query"], tuple(row["class_ids"]), tuple(tuple(way) for way in row["supports"]))


def _canonical(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
