"""Manifests of episodes that were damaged, or edited by someone who knows how to hash them."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.classes.split import class_split
from fewseg.dataset.episodes.manifest import read_manifest
from fewseg.dataset.episodes.manifest_check import check_manifest
from fewseg.dataset.episodes.protocol import load_protocol
from tests.fuzz.damage import ODD_TEXTS, damaged, damaged_text
from tests.fuzz.outcome import accepted, cases, generator

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    1.0,
    1.5,
    1e30,
    "",
    "1",
    [],
    [1],
    {},
    {"a": 1},
    [[1]],
    *ODD_TEXTS,
)


@pytest.fixture(scope="module")
def fold(shapes: Path) -> Fold:
    val = shapes / "ImageSets/Segmentation/val.txt"
    protocol = load_protocol("bam", "shapes", min_area=1)
    return Fold("shapes", 0, class_split("shapes", 0), protocol, shapes, val, val)


@pytest.fixture(scope="module")
def written(fold: Fold, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a manifest."""
    path = tmp_path_factory.mktemp("manifest") / "good.jsonl"
    fold.manifest(3, 1, episodes=8).write(path)
    check_manifest(read_manifest(path), fold, path, shot=1, ways=1)
    return path.read_text()


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def edited(text: str, rng: random.Random) -> str:
    """Return a manifest with another value somewhere, and the hash that belongs to it."""
    header, *rows = [json.loads(line) for line in text.splitlines()]
    del header["hash"]
    target = rng.choice((header, rng.choice(rows)))
    key = rng.choice(list(target))
    odd = rng.choice((*ODD, {"data_set": "pascal", "protocol": "hsnet", "query_order": "class"}.get(key)))
    kind = rng.randrange(6)
    if kind == 0:
        del target[key]
    elif kind == 1:
        target[rng.choice(("extra", "hash", "episodes", ""))] = odd
    elif kind == 2 and isinstance(target[key], list):
        target[key] = [odd] * len(target[key]) if rng.random() < 0.5 else [*target[key], odd]
    elif kind == 3 and isinstance(target[key], int):
        target[key] = rng.choice((float(target[key]), bool(target[key]), str(target[key]), target[key] + 1))
    else:
        target[key] = odd
    lines = [canonical(header), *map(canonical, rows)]
    hashed = hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()
    return "\n".join([canonical(header | {"hash": hashed}), *lines[1:]]) + "\n"


@pytest.mark.parametrize("number", cases(60))
def test_manifests(number: int, fold: Fold, written: str, tmp_path: Path) -> None:
    rng = generator("manifest", number)
    path = tmp_path / "odd.jsonl"
    if number % 4 == 0:
        path.write_bytes(damaged(written.encode(), rng))
    elif number % 4 == 1:
        path.write_text(damaged_text(written, rng), errors="surrogatepass", newline="")
    else:
        path.write_text(edited(written, rng), errors="surrogatepass", newline="")

    def read() -> None:
        manifest = read_manifest(path)
        check_manifest(manifest, fold, path, shot=1, ways=1)
        assert type(manifest.fold) is type(manifest.shot) is type(manifest.ways) is type(manifest.seed) is int
        assert manifest.generalized is False and manifest.seed >= 0
        assert manifest.protocol == "bam" and manifest.query_order in ("list", "uniform", "class", "pairs")
        for spec in manifest:
            assert type(spec.query) is str and all(type(name) is str for way in spec.supports for name in way)
            assert all(type(class_id) is int for class_id in spec.class_ids)

    accepted(read, ("odd.jsonl",))
