"""The preparation of PASCAL-5i and FSS-1000, from the user's files to a data root. It can be repeated."""

from __future__ import annotations

from pathlib import Path

from fewseg.dataset.classes.shared_names import VOC_NAMES
from fewseg.dataset.lists.image_lists import OBJECT_FOLDER
from fewseg.dataset.prepare import fss1000, pascal
from fewseg.dataset.prepare.class_pairs import place_images
from fewseg.dataset.prepare.files import is_archive, link_folder, require_folder, require_root
from fewseg.dataset.prepare.options import Options, is_half_unpacked
from fewseg.dataset.prepare.pascal import Sources
from fewseg.util.log import get_log


def prepare_pascal(
    options: Options, voc: Path | None = None, sbd: Path | None = None, masks: Path | None = None
) -> str:
    """Prepare PASCAL-5i; parts that are None are downloaded.

    Args:
        voc, sbd: folders or archives.
        masks: a ready SegmentationClassAug, folder or archive, which replaces SBD.
    """
    root = require_root(options.root)
    sources = _pascal_sources(options, voc, sbd, masks)
    lists = pascal.make_lists(sources, options.subset)
    absent = pascal.without_photograph(sources, lists)
    if absent and options.subset:
        lists = {part: [name for name in ids if name not in absent] for part, ids in lists.items()}
    elif absent:
        message = "%s: %d listed images are missing, first %s.jpg; --verify will name them"
        get_log("prepare").warning(message, sources.voc / "JPEGImages", len(absent), min(absent))
    link_folder(sources.voc / "JPEGImages", root / "JPEGImages")
    if (sources.voc / OBJECT_FOLDER).is_dir():
        link_folder(sources.voc / OBJECT_FOLDER, root / OBJECT_FOLDER)
    every = sorted({name for ids in lists.values() for name in ids})
    made = pascal.make_masks(sources, every, root / pascal.MASKS, workers=options.workers)
    lines = {
        pascal.FILES[part]: [f"JPEGImages/{name}.jpg {pascal.MASKS}/{name}.png" for name in ids]
        for part, ids in lists.items()
    }
    options.finish("pascal", lines, VOC_NAMES, [f"{pascal.MASKS}/{name}.png" for name in every])
    counts = ", ".join(f"{part} {len(ids)}" for part, ids in lists.items())
    return f"{root}: PASCAL-5i, {made} masks made, {counts} images"


def _pascal_sources(options: Options, voc: Path | None, sbd: Path | None, masks: Path | None) -> Sources:
    """Return the folders of the parts, after downloading and unpacking those that are missing."""
    root, ready = options.root, masks
    in_root = (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Segmentation").is_dir()
    in_root = in_root and not is_half_unpacked(root, pascal.VOC)
    if voc is None:
        voc = root if in_root else options.fetch(pascal.VOC)
    if is_archive(voc):
        voc = options.unpacked(voc, root, pascal.choose_voc, [pascal.VOC])
    if ready is None and sbd is None and _complete(root / pascal.MASKS):
        ready = root / pascal.MASKS
    if ready is not None and is_archive(ready):
        ready = options.unpacked(ready, options.downloads / "masks", pascal.choose_masks)
    if sbd is None and ready is None and not options.subset:
        sbd = options.fetch(pascal.SBD)
    if sbd is not None and is_archive(sbd):
        sbd = options.unpacked(sbd, options.downloads / "SBD", pascal.choose_sbd, [pascal.SBD])
    if ready is not None:
        require_folder(ready, "SegmentationClassAug")
    voc = pascal.find_voc(require_folder(voc, "VOC 2012"))
    return Sources(voc, None if sbd is None else pascal.find_sbd(sbd), ready)


def _complete(masks: Path) -> bool:
    wanted = pascal.COUNTS["trainaug"] + pascal.COUNTS["val"]
    return masks.is_dir() and sum(1 for _ in masks.glob("*.png")) >= wanted


def prepare_fss1000(
    options: Options,
    source: Path,
    test_classes: Path | None = None,
    validation_classes: Path | None = None,
    seed: int = 0,
) -> str:
    """Prepare FSS-1000 from its class folders or an archive of these."""
    root = require_root(options.root)
    if is_archive(source):
        source = options.unpacked(source, options.downloads / "fss1000", lambda path: path)
    pairs = fss1000.find_classes(require_folder(source, "FSS-1000"))
    test = fss1000.read_classes(test_classes or options.fetch(fss1000.TEST_LIST))
    validation = None if validation_classes is None else fss1000.read_classes(validation_classes)
    parts = fss1000.split_classes(sorted(pairs), test, validation, seed=seed, subset=options.subset)
    lines = place_images(pairs, root, "FSS-1000", workers=options.workers)
    lists = {
        f"{part}.txt": [line for name in names for line in lines[name]]
        for part, names in parts.items()
        if names
    }
    masks = [line.split()[1] for lines_of_part in lists.values() for line in lines_of_part]
    options.finish("fss1000", lists, ("background", *sorted(pairs)), masks)
    counts = ", ".join(f"{part} {len(names)}" for part, names in parts.items())
    return f"{root}: FSS-1000, {counts} classes"
