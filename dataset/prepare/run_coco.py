"""The preparation of COCO-20i, from the user's files to a data root. It can be repeated."""

from __future__ import annotations

from pathlib import Path

from fewseg.dataset.classes.shared_names import COCO_NAMES
from fewseg.dataset.prepare import coco
from fewseg.dataset.prepare.files import link_folder, place, require_folder, require_root
from fewseg.dataset.prepare.options import Options, is_half_unpacked
from fewseg.util.errors import DataError


def prepare_coco(options: Options, source: Path | None = None) -> str:
    """Prepare COCO-20i from train2014, val2014 and annotations in a folder, or from the official archives.

    Existing masks in ``annotations/train2014`` and ``annotations/val2014`` are used; if they are complete, no
    ``instances_*.json`` is needed.
    """
    root = require_root(options.root)
    places = [root] if source is None else [require_folder(source, "COCO 2014"), root]
    lines: dict[str, list[str]] = {}
    masks: list[str] = []
    classes: tuple[str, ...] = COCO_NAMES
    for part, (_, wanted) in coco.COUNTS.items():
        photographs = _photographs(options, places, part)
        link_folder(photographs, root / part)
        annotated, images = _place_masks(places, root, part), None
        complete = len(annotated) >= (1 if options.subset else wanted)
        instances = _instances(options, places, part, needed=not complete)
        if instances is not None:
            annotations = coco.read_annotations(instances)
            if not options.subset:
                coco.check_categories(annotations)
            names = coco.paint_masks(annotations, root / "annotations" / part, workers=options.workers)
            annotated, images = [Path(name).stem for name in names], annotations.images
            classes = annotations.names
        file_of = {path.stem: path.name for path in photographs.iterdir()}
        listed = [name for name in annotated if name in file_of]
        if not options.subset:
            _require_counts(part, photographs, annotated, listed, images)
        paths = [f"annotations/{part}/{name}.png" for name in listed]
        lines[f"{part.removesuffix('2014')}.txt"] = [
            f"{part}/{file_of[name]} {mask}" for name, mask in zip(listed, paths, strict=True)
        ]
        masks += paths
    options.finish("coco", lines, classes, masks)
    counts = ", ".join(f"{Path(file).stem} {len(found)}" for file, found in lines.items())
    return f"{root}: COCO-20i, {counts} images"


def _photographs(options: Options, places: list[Path], part: str) -> Path:
    paths = [folder for place in places for folder in (place / part, place / "images" / part)]
    path = _found(options, places, part, paths)
    return require_folder(path or options.root / part, "COCO's images")


def _instances(options: Options, places: list[Path], part: str, needed: bool) -> Path | None:
    name = f"instances_{part}.json"
    paths = [file for place in places for file in (place / "annotations" / name, place / name)]
    if not needed:
        return next((path for path in paths if path.is_file()), None)
    return _found(options, places, "annotations", paths) or options.root / "annotations" / name


def _found(options: Options, places: list[Path], key: str, paths: list[Path]) -> Path | None:
    """Return the first of the paths that exists, after unpacking its archive if none does."""
    archive = coco.ARCHIVES[key]
    if not any(path.exists() for path in paths) or is_half_unpacked(options.root, archive):
        local = places[0] / archive.name
        path = local if local.is_file() else options.fetch(archive)
        options.unpacked(path, options.root, lambda member: member, [archive])
    return next((path for path in paths if path.exists()), None)


def _place_masks(places: list[Path], root: Path, part: str) -> list[str]:
    """Place the masks that the user has; return the names of the images that have a mask."""
    folder = root / "annotations" / part
    for other in places:
        if other != root:
            for path in sorted((other / "annotations" / part).glob("*.png")):
                place(path, folder / path.name)
    return sorted(path.stem for path in folder.glob("*.png"))


def _require_counts(
    part: str, photographs: Path, annotated: list[str], listed: list[str], images: int | None
) -> None:
    """Raise DataError unless a part has the official numbers of images and annotated images."""
    wanted, wanted_listed = coco.COUNTS[part]
    if len(listed) < len(annotated):
        missing = len(annotated) - len(listed)
        first = min(set(annotated) - set(listed))
        raise DataError(f"{photographs}: {missing} images are missing, first {first}.jpg; fetch them again")
    if len(listed) != wanted_listed or images not in (None, wanted):
        counts = f"{images or len(listed)} images, {len(listed)} of them annotated"
        raise DataError(
            f"{part}: {counts}, instead of {wanted} and {wanted_listed}; fetch the annotations again, or "
            "accept a part of the data set by --subset"
        )
