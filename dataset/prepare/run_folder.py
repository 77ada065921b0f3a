"""The preparation of a user's own images and masks, from a folder to a data root. It can be repeated."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewseg.dataset.classes.folds_file import FOLDS_FILE, Folds, balanced_folds, read_folds
from fewseg.dataset.classes.own_names import CLASSES_FILE
from fewseg.dataset.labels import BACKGROUND, FOLDS, VOID
from fewseg.dataset.prepare import folder
from fewseg.dataset.prepare.files import is_archive, require_root
from fewseg.dataset.prepare.layout import read_record
from fewseg.dataset.prepare.made import MadeFiles
from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.own_classes import class_names, recognise_binary_masks, warn_of_moved_names
from fewseg.dataset.prepare.own_division import divide
from fewseg.dataset.prepare.own_layout import find_layout
from fewseg.util.errors import DataError
from fewseg.util.log import get_log


def prepare_folder(
    options: Options,
    source: Path,
    classes: Path | None = None,
    folds: int | None = None,
    folds_file: Path | None = None,
    share: float = 0.34,
    seed: int = 0,
) -> str:
    """Prepare a folder of a user's own images and masks.

    Args:
        classes: file of class names; None: ``classes.txt``, the names of mask folders, or generated names.
        folds: number of folds to make; None: the folds of an earlier run, or four.
        folds_file: a file with the folds, like ``folds.txt``.
        share: share of the images for testing, where neither lists nor subfolders divide the folder.
    """
    log = get_log("prepare")
    if is_archive(source):
        source = _unpacked(options, source)
    layout = recognise_binary_masks(find_layout(source), classes)
    root = require_root(options.root)
    read_record(root, "folder")  # raises an error if the root holds another data set
    names = class_names(layout, classes)
    made = MadeFiles(root, options.workers)
    placed = folder.place_pictures(layout, root, names, made, options.workers)
    lines = {picture.name: picture.line for picture in placed}
    if names is None:
        last = max((c for p in placed for c in p.labels if c != VOID), default=BACKGROUND)
        names = ("background", *(f"class_{c}" for c in range(1, last + 1)))
        log.warning("no classes.txt: the classes are called class_1 to class_%d", last)
    if not layout.binary:
        warn_of_moved_names(root / CLASSES_FILE, names)
    if layout.without_mask:
        count, first = len(layout.without_mask), layout.without_mask[0]
        log.warning("%d images have no mask and are left out, first %s", count, first)
    parts = divide(layout.source, placed, share, seed)
    images = Counter(c for picture in placed for c in picture.labels if c not in (BACKGROUND, VOID))
    if not images:
        raise DataError(f"{source}: no mask holds a class; every pixel is background or void")
    fold_table = _folds(made, names, images, folds, folds_file)
    lists = {f"{part}.txt": [lines[name] for name in ids] for part, ids in parts.items()}
    options.finish("folder", lists, names, [line.split()[1] for line in lines.values()])
    removed = made.finish([FOLDS_FILE, *(path for line in lines.values() for path in line.split())])
    if removed:
        log.warning("%s: %d files of an earlier preparation removed", root, removed)
    sizes = ", ".join(str(len(fold)) for fold in fold_table.novel)
    counts = ", ".join(f"{part} {len(ids)}" for part, ids in parts.items())
    return f"{root}: {len(names) - 1} classes, {len(fold_table.novel)} folds of {sizes}; {counts} images"


def _unpacked(options: Options, archive: Path) -> Path:
    """Unpack an archive to a folder that no other archive of the same name uses."""
    status = archive.stat()
    state = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    target = options.downloads / f"{archive.stem}-{zlib.crc32(state.encode()):08x}"
    return options.unpacked(archive, target, lambda path: path)


def _folds(
    made: MadeFiles,
    names: Sequence[str],
    images: Mapping[int, int],
    folds: int | None,
    folds_file: Path | None,
) -> Folds:
    """Return the folds of an earlier run, which the user may have edited, or make and write new ones."""
    path, log = made.root / FOLDS_FILE, get_log("prepare")
    if folds_file is None and folds is None and path.is_file():
        try:
            kept = read_folds(path, names)
        except DataError:
            if not made.is_untouched(FOLDS_FILE):
                raise
            log.warning("%s: was of other classes and is dealt anew", path)
        else:
            outside = [names[c] for c in sorted(images) if not any(c in fold for fold in kept.novel)]
            if outside:
                message = "%s: %s stand in no fold, so they are base classes of all; --folds deals anew"
                log.warning(message, path, ", ".join(outside))
            return kept
    if folds_file is not None:
        dealt = read_folds(folds_file, names)
    else:
        dealt = balanced_folds(images, min(FOLDS, len(images)) if folds is None else folds, names)
    dealt.write(path)
    made.add(FOLDS_FILE)
    return dealt
