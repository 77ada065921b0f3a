"""The steps from what the user gives to a data root: PASCAL-5i, FSS-1000, folders. All can be repeated."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset.class_names import CLASSES_FILE
from dataset.folds_file import FOLDS_FILE, Folds, balanced_folds, read_folds
from dataset.names import VOC_NAMES
from dataset.prepare import folder, fss1000, pascal
from dataset.prepare.files import is_archive, link_folder, require_folder, require_root
from dataset.prepare.layout import read_record
from dataset.prepare.made import MadeFiles
from dataset.prepare.options import Options, is_half_unpacked
from dataset.prepare.own_classes import class_names, told_apart, warn_of_moved_names
from dataset.prepare.own_division import divide
from dataset.prepare.own_layout import find_layout
from dataset.prepare.pascal import Sources
from dataset.split import BACKGROUND, FOLDS, VOID
from util.errors import DataError
from util.log import get_log


def prepare_pascal(
    options: Options, voc: Path | None = None, sbd: Path | None = None, masks: Path | None = None
) -> str:
    """Prepare PASCAL-5i; what is not given is downloaded.

    Args:
        voc, sbd: folder or archive.
        masks: a ready SegmentationClassAug, folder or archive, in place of SBD.
    """
    root = require_root(options.root)
    sources = _pascal_sources(options, voc, sbd, masks)
    lists = pascal.make_lists(sources, options.subset)
    absent = pascal.without_photograph(sources, lists)
    if absent and options.subset:
        lists = {part: [name for name in ids if name not in absent] for part, ids in lists.items()}
    elif absent:
        get_log("prepare").warning(
            "%s: %d listed images are missing, first %s.jpg; --verify will name them",
            sources.voc / "JPEGImages",
            len(absent),
            min(absent),
        )
    link_folder(sources.voc / "JPEGImages", root / "JPEGImages")
    every = sorted({name for ids in lists.values() for name in ids})
    made = pascal.make_masks(
        sources, every, root / pascal.MASKS, workers=options.workers, progress=options.progress
    )
    lines = {
        pascal.FILES[part]: [f"JPEGImages/{name}.jpg {pascal.MASKS}/{name}.png" for name in ids]
        for part, ids in lists.items()
    }
    options.finish("pascal", lines, VOC_NAMES, [f"{pascal.MASKS}/{name}.png" for name in every])
    counts = ", ".join(f"{part} {len(ids)}" for part, ids in lists.items())
    return f"{root}: PASCAL-5i, {made} masks made, {counts} images"


def _pascal_sources(options: Options, voc: Path | None, sbd: Path | None, masks: Path | None) -> Sources:
    """Return where the parts lie, fetched and unpacked where they were not."""
    root, ready = options.root, masks
    own = (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Segmentation").is_dir()
    own = own and not is_half_unpacked(root, pascal.VOC)
    if voc is None:
        voc = root if own else options.fetch(pascal.VOC)
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
    """Prepare FSS-1000 from its class folders, or an archive of them."""
    root = require_root(options.root)
    if is_archive(source):
        source = options.unpacked(source, options.downloads / "fss1000", lambda path: path)
    pairs = fss1000.find_classes(require_folder(source, "FSS-1000"))
    test = fss1000.read_classes(test_classes or options.fetch(fss1000.TEST_LIST))
    validation = None if validation_classes is None else fss1000.read_classes(validation_classes)
    parts = fss1000.split_classes(sorted(pairs), test, validation, seed=seed, subset=options.subset)
    lines = fss1000.place_images(pairs, root, workers=options.workers, progress=options.progress)
    lists = {
        f"{part}.txt": [line for name in names for line in lines[name]]
        for part, names in parts.items()
        if names
    }
    masks = [line.split()[1] for found in lists.values() for line in found]
    options.finish("fss1000", lists, ("background", *sorted(pairs)), masks)
    counts = ", ".join(f"{part} {len(names)}" for part, names in parts.items())
    return f"{root}: FSS-1000, {counts} classes"


def prepare_folder(
    options: Options,
    source: Path,
    classes: Path | None = None,
    folds: int | None = None,
    folds_file: Path | None = None,
    share: float = 0.34,
    seed: int = 0,
) -> str:
    """Prepare a folder of one's own images and masks.

    Args:
        classes: class names; unset: ``classes.txt``, or the names of mask folders, or made up.
        folds: how many folds to deal; unset: those of an earlier run, or four.
        folds_file: the folds themselves, as ``folds.txt``.
        share: of the images for testing, where the folder neither has lists nor is divided.
    """
    if is_archive(source):
        source = _unpacked(options, source)
    layout = told_apart(find_layout(source), classes)
    root = require_root(options.root)
    read_record(root, "folder")  # refuses the root of another data set
    names = class_names(layout, classes)
    processes = {"workers": options.workers, "progress": options.progress}
    made = MadeFiles(root, **processes)
    placed = folder.place_pictures(layout, root, names, made, **processes)
    lines = {picture.name: picture.line for picture in placed}
    if names is None:
        last = max((c for p in placed for c in p.labels if c != VOID), default=BACKGROUND)
        names = ("background", *(f"class_{c}" for c in range(1, last + 1)))
        get_log("prepare").warning("no classes.txt: the classes are called class_1 to class_%d", last)
    if not layout.binary:
        warn_of_moved_names(root / CLASSES_FILE, names)
    if layout.without_mask:
        get_log("prepare").warning(
            "%d images have no mask and are left out, first %s",
            len(layout.without_mask),
            layout.without_mask[0],
        )
    parts = divide(layout.source, placed, share, seed)
    images = Counter(c for picture in placed for c in picture.labels if c not in (BACKGROUND, VOID))
    if not images:
        raise DataError(f"{source}: no mask holds a class; every pixel is background or void")
    dealt = _folds(made, names, images, folds, folds_file)
    lists = {f"{part}.txt": [lines[name] for name in ids] for part, ids in parts.items()}
    options.finish("folder", lists, names, [line.split()[1] for line in lines.values()])
    removed = made.finish([FOLDS_FILE, *(path for line in lines.values() for path in line.split())])
    if removed:
        get_log("prepare").warning("%s: %d files of an earlier preparation removed", root, removed)
    sizes = ", ".join(str(len(fold)) for fold in dealt.novel)
    counts = ", ".join(f"{part} {len(ids)}" for part, ids in parts.items())
    return f"{root}: {len(names) - 1} classes, {len(dealt.novel)} folds of {sizes}; {counts} images"


def _unpacked(options: Options, archive: Path) -> Path:
    """Unpack a folder of one's own to a place of its own: another archive of that name may be another folder."""
    status = archive.stat()
    state = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    target = options.downloads / f"{archive.stem}-{zlib.crc32(state.encode()):08x}"
    return options.unpacked(archive, target, lambda path: path)


def _folds(
    made: MadeFiles, names: Sequence[str], images: Mapping[int, int], folds: int | None, given: Path | None
) -> Folds:
    """Return the folds, and write them unless those of an earlier run, perhaps edited since, are kept."""
    path = made.root / FOLDS_FILE
    if given is None and folds is None and path.is_file():
        try:
            kept = read_folds(path, names)
            outside = [names[c] for c in sorted(images) if not any(c in fold for fold in kept.novel)]
            if outside:
                get_log("prepare").warning(
                    "%s: %s stand in no fold, so they are base classes of all; --folds deals anew",
                    path,
                    ", ".join(outside),
                )
            return kept
        except DataError:
            if not made.is_untouched(FOLDS_FILE):
                raise
            get_log("prepare").warning("%s: was of other classes and is dealt anew", path)
    if given is not None:
        dealt = read_folds(given, names)
    else:
        dealt = balanced_folds(images, min(FOLDS, len(images)) if folds is None else folds, names)
    dealt.write(path)
    made.add(FOLDS_FILE)
    return dealt
