"""The steps of each data set, from what the user gives to a data root. Every step can be repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset.folds_file import FOLDS_FILE, Folds, balanced_folds, read_folds
from dataset.names import VOC_NAMES
from dataset.prepare import coco, folder, fss1000, pascal
from dataset.prepare.download import Archive, fetch
from dataset.prepare.files import Choose, is_archive, link_folder, require_folder, require_root, unpack
from dataset.prepare.layout import list_path, write_list, write_names, write_record
from dataset.prepare.own_layout import find_layout
from dataset.split import BACKGROUND, FOLDS, VOID
from util.errors import DataError
from util.log import get_log


@dataclass(frozen=True)
class Options:
    """What all preparations share.

    Attributes:
        root: the data root to make.
        downloads: where archives are fetched to.
        lists: where lists for the configs go, or None for the data root only.
        mirrors, checksums: see ``Archive.found_at``.
        subset: accept a part of the data set.
        workers, progress: as in ``work``.
    """

    root: Path
    downloads: Path = Path("data/downloads")
    lists: Path | None = None
    mirrors: Sequence[str] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)
    subset: bool = False
    workers: int | None = None
    progress: bool = True

    def fetch(self, archive: Archive) -> Path:
        return fetch(archive.found_at(self.mirrors, self.checksums), self.downloads, self.progress)

    def unpacked(self, archive: Path, target: Path, choose: Choose) -> Path:
        """Unpack an archive into ``target``, once."""
        status = archive.stat()
        stamp = target / ".fewseg" / f"{archive.name}.unpacked"
        state = f"{status.st_size} {status.st_mtime_ns}\n"
        if not stamp.is_file() or stamp.read_text() != state:
            count = unpack(archive, target, choose, self.progress)
            if not count:
                raise DataError(f"{archive}: holds nothing of this data set; give another archive")
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(state)
        return target


def prepare_pascal(
    options: Options, voc: Path | None = None, sbd: Path | None = None, masks: Path | None = None
) -> str:
    """Prepare PASCAL-5i; what is not given is downloaded.

    Args:
        voc, sbd: folder or archive.
        masks: a ready SegmentationClassAug, folder or archive, in place of SBD.
    """
    root = require_root(options.root)
    work_folder = options.downloads
    own = (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Segmentation").is_dir()
    given_voc = voc if voc is not None else root if own else options.fetch(pascal.VOC)
    if is_archive(given_voc):
        given_voc = options.unpacked(given_voc, root, pascal.choose_voc)
    voc_folder = pascal.find_voc(require_folder(given_voc, "VOC 2012"))
    ready = masks
    if ready is None and sbd is None and _complete(root / pascal.MASKS):
        ready = root / pascal.MASKS
    if ready is not None and is_archive(ready):
        target = options.unpacked(
            ready, work_folder / "masks", lambda p: p.name if p.suffix == ".png" else None
        )
        ready = target
    given_sbd = sbd
    if given_sbd is None and ready is None and not options.subset:
        given_sbd = options.fetch(pascal.SBD)
    if given_sbd is not None and is_archive(given_sbd):
        given_sbd = options.unpacked(given_sbd, work_folder / "SBD", pascal.choose_sbd)
    if ready is not None:
        require_folder(ready, "SegmentationClassAug")
    sources = pascal.Sources(voc_folder, None if given_sbd is None else pascal.find_sbd(given_sbd), ready)
    lists = pascal.make_lists(sources, options.subset)
    link_folder(voc_folder / "JPEGImages", root / "JPEGImages")
    every = sorted({name for ids in lists.values() for name in ids})
    made = pascal.make_masks(
        sources, every, root / pascal.MASKS, workers=options.workers, progress=options.progress
    )
    lines = {
        pascal.FILES[part]: [f"JPEGImages/{name}.jpg {pascal.MASKS}/{name}.png" for name in ids]
        for part, ids in lists.items()
    }
    _finish(options, "pascal", lines, VOC_NAMES, [f"{pascal.MASKS}/{name}.png" for name in every])
    counts = ", ".join(f"{part} {len(ids)}" for part, ids in lists.items())
    return f"{root}: PASCAL-5i, {made} masks made, {counts} images"


def _complete(masks: Path) -> bool:
    wanted = pascal.COUNTS["trainaug"] + pascal.COUNTS["val"]
    return masks.is_dir() and sum(1 for _ in masks.glob("*.png")) >= wanted


def prepare_coco(options: Options, source: Path | None = None) -> str:
    """Prepare COCO-20i from train2014, val2014 and annotations in a folder, or from the official archives."""
    root = require_root(options.root)
    if source is not None:
        require_folder(source, "COCO 2014")
    lines, masks, made = {}, [], []
    for part, (images, listed) in coco.COUNTS.items():
        photographs, instances = _coco_part(options, source, part)
        link_folder(photographs, root / part)
        annotations = coco.read_annotations(instances)
        if not options.subset:
            coco.check_categories(annotations)
        names = coco.paint_masks(
            annotations, root / "annotations" / part, workers=options.workers, progress=options.progress
        )
        there = {path.name for path in photographs.iterdir()}
        absent = [name for name in names if name not in there]
        if absent and not options.subset:
            raise DataError(
                f"{photographs}: {len(absent)} images are missing, first {absent[0]}; fetch them again"
            )
        names = [name for name in names if name in there]
        if not options.subset and (len(annotations.images), len(names)) != (images, listed):
            raise DataError(
                f"{instances}: {len(annotations.images)} images, {len(names)} of them annotated, instead of "
                f"{images} and {listed}; fetch it again, or accept a part of the data set by --subset"
            )
        paths = [f"annotations/{part}/{Path(name).stem}.png" for name in names]
        short = part.removesuffix("2014")
        lines[f"{short}.txt"] = [f"{part}/{name} {mask}" for name, mask in zip(names, paths, strict=True)]
        masks += paths
        made.append(f"{short} {len(names)}")
    _finish(options, "coco", lines, annotations.names, masks)
    return f"{root}: COCO-20i, {', '.join(made)} images"


def _coco_part(options: Options, source: Path | None, part: str) -> tuple[Path, Path]:
    """Return the folder of photographs and the annotation file of a part, unpacked if they were not."""
    root = options.root
    places = [place for place in (source, root) if place is not None]
    folders = [f for place in places for f in (place / part, place / "images" / part) if f.is_dir()]
    name = f"instances_{part}.json"
    files = [f for place in places for f in (place / "annotations" / name, place / name) if f.is_file()]
    if not folders or not files:
        for key, missing in ((part, not folders), ("annotations", not files)):
            if not missing:
                continue
            local = None if source is None else source / coco.ARCHIVES[key].name
            archive = local if local is not None and local.is_file() else options.fetch(coco.ARCHIVES[key])
            options.unpacked(archive, root, lambda path: path)
        folders, files = folders or [root / part], files or [root / "annotations" / name]
    return require_folder(folders[0], "COCO's images"), files[0]


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
    _finish(options, "fss1000", lists, ("background", *sorted(pairs)), masks)
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
        share: of the images for testing, where the folder has no lists of its own.
    """
    layout = folder.told_apart(find_layout(source), classes)
    root = require_root(options.root)
    names = folder.class_names(layout, classes)
    placed = folder.place_pictures(layout, root, names, workers=options.workers, progress=options.progress)
    lines = {picture.name: picture.line for picture in placed}
    if names is None:
        last = max((c for p in placed for c in p.labels if c != VOID), default=BACKGROUND)
        names = ("background", *(f"class_{c}" for c in range(1, last + 1)))
        get_log("prepare").warning("no classes.txt: the classes are called class_1 to class_%d", last)
    if layout.without_mask:
        get_log("prepare").warning(
            "%d images have no mask and are left out, first %s",
            len(layout.without_mask),
            layout.without_mask[0],
        )
    parts = folder.given_lists(source, lines) or folder.draw_lists(placed, share, seed)
    images = Counter(c for picture in placed for c in picture.labels if c not in (BACKGROUND, VOID))
    if not images:
        raise DataError(f"{source}: no mask holds a class; every pixel is background or void")
    made = _folds(root, names, images, folds, folds_file)
    lists = {f"{part}.txt": [lines[name] for name in ids] for part, ids in parts.items()}
    _finish(options, "folder", lists, names, [line.split()[1] for line in lines.values()])
    made.write(root / FOLDS_FILE)
    sizes = ", ".join(str(len(fold)) for fold in made.novel)
    counts = ", ".join(f"{part} {len(ids)}" for part, ids in parts.items())
    return f"{root}: {len(names) - 1} classes, {len(made.novel)} folds of {sizes}; {counts} images"


def _folds(
    root: Path, names: Sequence[str], images: Mapping[int, int], folds: int | None, given: Path | None
) -> Folds:
    if given is not None:
        return read_folds(given, names)
    if folds is None and (root / FOLDS_FILE).is_file():
        return read_folds(root / FOLDS_FILE, names)  # perhaps edited since
    return balanced_folds(images, min(FOLDS, len(images)) if folds is None else folds, names)


def _finish(
    options: Options,
    data_set: str,
    lines: Mapping[str, Sequence[str]],
    names: Sequence[str],
    masks: Sequence[str],
) -> None:
    """Write lists, class names and the record."""
    written = {}
    for file, found in lines.items():
        part = Path(file).stem
        written[part] = list_path(options.root, part) if options.lists is None else options.lists / file
        write_list(written[part], found)
    write_names(options.root, names)
    write_record(options.root, data_set, written, masks, workers=options.workers, progress=options.progress)
