"""The preparation of the data sets that CD-FSS tests on, from the user's files to a data root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fewseg.dataset.prepare.cdfss.chest_xray import NAME, find_lungs, read_lungs
from fewseg.dataset.prepare.cdfss.deepglobe import find_images, find_tiles, place_tiles
from fewseg.dataset.prepare.cdfss.isic import find_lesions, read_table
from fewseg.dataset.prepare.class_pairs import place_images
from fewseg.dataset.prepare.files import is_archive, require_folder, require_root
from fewseg.dataset.prepare.options import Options


def prepare_deepglobe(options: Options, source: Path) -> str:
    """Prepare DeepGlobe's land cover from whole images, which are cut into tiles, or from published tiles."""
    root, sources = require_root(options.root), _sources(options, source, "deepglobe")
    tiles = find_tiles(sources, subset=options.subset)
    if tiles:
        lines = place_images(tiles, root, "DeepGlobe", workers=options.workers)
    else:
        lines = place_tiles(find_images(sources), root, subset=options.subset, workers=options.workers)
    return _finish(options, "deepglobe", tuple(lines), lines)


def prepare_isic(options: Options, source: Path, classes: Path | None = None) -> str:
    """Prepare ISIC 2018; ``classes`` is the table of image and class, or None if folders say it."""
    table = None if classes is None else read_table(classes)
    root, sources = require_root(options.root), _sources(options, source, "isic")
    pairs = find_lesions(sources, table, subset=options.subset)
    return _finish(options, "isic", tuple(pairs), place_images(pairs, root, "ISIC", workers=options.workers))


def prepare_chest_xray(options: Options, source: Path) -> str:
    """Prepare the chest X-rays."""
    root, sources = require_root(options.root), _sources(options, source, "chest_xray")
    pairs = find_lungs(sources, subset=options.subset)
    lines = place_images(pairs, root, "chest X-rays", read=read_lungs, workers=options.workers)
    return _finish(options, "chest_xray", (NAME,), lines)


def _sources(options: Options, source: Path, data_set: str) -> Sequence[Path]:
    """Return the folders to search: the source, or what was unpacked of it or of the archives in it."""
    target = options.downloads / data_set
    if is_archive(source):
        return [options.unpacked(source, target, lambda path: path)]
    inside = sorted(require_folder(source, data_set).iterdir())
    archives = [] if any(path.is_dir() for path in inside) else [p for p in inside if is_archive(p)]
    for path in archives:
        options.unpacked(path, target, lambda path: path)
    return [target if archives else source]


def _finish(options: Options, data_set: str, names: Sequence[str], lines: Mapping[str, Sequence[str]]) -> str:
    listed = [line for name in names for line in lines[name]]
    masks = [line.split()[1] for line in listed]
    options.finish(data_set, {"test.txt": listed}, ("background", *names), masks)
    counts = ", ".join(f"{name} {len(lines[name])}" for name in names)
    return f"{options.root}: {data_set}, {len(listed)} pairs of image and mask: {counts}"
