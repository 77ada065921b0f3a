"""Find images and masks in a user's own folder, in any of the usual layouts.

    index masks       images/x.jpg, masks/x.png         a class id per pixel
    side by side      x.jpg, x.png                      the same, in one folder
    folder per class  images/x.jpg, masks/CLASS/x.png   binary masks: 0 and any other value
    folder per image  images/x.jpg, masks/x/CLASS.png   the same
    class folders     CLASS/x.jpg, CLASS/x.png          the same

Index masks of only 0 and 255 are binary masks (``own_classes.recognise_binary_masks``). ``images`` and
``masks`` may have any of the usual names; VOC's layout is one of them. Names of masks may end in ``_mask`` or
similar. There may be folders ``train`` and ``val`` above or below ``images`` and ``masks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fewseg.dataset.prepare.files import require_folder
from fewseg.util.errors import DataError

IMAGE_FOLDERS = ("JPEGImages", "images", "image", "imgs", "img", "photos")
MASK_FOLDERS = (
    *("SegmentationClassAug", "SegmentationClass", "masks", "mask", "labels", "label"),
    *("annotations", "annotation", "gt", "segmentations"),
)
TRAIN_PARTS = ("train", "training")
TEST_PARTS = ("val", "valid", "validation", "test", "testing")
MASK_ENDINGS = tuple(
    f"{sign}{word}"
    for sign in "_-."
    for word in ("mask", "masks", "label", "labels", "gt", "seg", "annotation")
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Picture:
    """An image with its masks.

    Attributes:
        name: path below the image folder without suffix, blanks as underscores.
        image: the photograph.
        masks: one index mask under "", or a binary mask for each class that has one.
    """

    name: str
    image: Path
    masks: dict[str, Path]


@dataclass(frozen=True)
class OwnLayout:
    """The images and masks that were found in a folder.

    Attributes:
        source: the folder.
        pictures: images with masks, sorted by name.
        class_folders: names of the classes that masks are named after; empty with index masks.
        without_mask: images without a mask.
    """

    source: Path
    pictures: tuple[Picture, ...]
    class_folders: tuple[str, ...]
    without_mask: tuple[Path, ...]

    @property
    def binary(self) -> bool:
        return bool(self.class_folders)


def find_layout(source: Path) -> OwnLayout:
    """Find out how a folder is laid out.

    Raises:
        DataError: there are no images, or no masks for them.
    """
    source = _without_wrapping(require_folder(source, "the folder of images and masks for --source"))
    parts = [path for name, path in _folders(source).items() if name in TRAIN_PARTS + TEST_PARTS]
    if parts and _folder(source, IMAGE_FOLDERS) is None:
        layouts = [(f"{part.name}/", _find_in(part)) for part in parts]
    else:
        layouts = [("", _find_in(source))]
    pictures = [
        replace(picture, name=prefix + picture.name) for prefix, one in layouts for picture in one.pictures
    ]
    if not pictures:
        raise DataError(_nothing_found(source))
    _require_distinct(pictures)
    return OwnLayout(
        source,
        tuple(sorted(pictures, key=lambda picture: picture.name)),
        tuple(sorted({name for _, one in layouts for name in one.class_folders})),
        tuple(path for _, one in layouts for path in one.without_mask),
    )


def _require_distinct(pictures: Sequence[Picture]) -> None:
    """Raise DataError if two pictures have one name: the second would replace the first."""
    images: dict[str, Path] = {}
    for picture in pictures:
        first = images.setdefault(picture.name, picture.image)
        if first != picture.image:
            raise DataError(
                f"{first} and {picture.image} would both be called {picture.name}, because blanks in names "
                "become underscores; rename one of them and its masks"
            )


def _without_wrapping(source: Path) -> Path:
    """Return the innermost folder where a folder holds only one other, as an unpacked archive often does."""
    while True:
        inside = [path for path in source.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir() or _folder(source, IMAGE_FOLDERS) is not None:
            return source
        if not _files(inside[0], IMAGE_SUFFIXES):
            return source
        source = inside[0]


def _find_in(source: Path) -> OwnLayout:
    """Find out how a folder without parts ``train`` and ``val`` is laid out; it may hold no pictures."""
    images = _folder(source, IMAGE_FOLDERS)
    masks = _folder(source, MASK_FOLDERS)
    if images is None or masks is None:
        images = masks = source
    photographs = _files(images, IMAGE_SUFFIXES)
    if images == masks:
        photographs = _without_masks(images, photographs)
    by_name = {_stem(images, path): path for path in photographs}
    if len(by_name) < len(photographs):
        twice = next(p for p in photographs if by_name[_stem(images, p)] != p)
        raise DataError(f"{twice}: another image has the same name with another suffix; rename one")
    masks_of, classes = _match(masks, by_name, beside=images == masks)
    pictures = [Picture("_".join(name.split()), by_name[name], masks_of[name]) for name in sorted(masks_of)]
    without = tuple(path for name, path in sorted(by_name.items()) if name not in masks_of)
    return OwnLayout(source, tuple(pictures), classes, without)


def _without_masks(folder: Path, paths: list[Path]) -> list[Path]:
    """Leave out files that are the mask of another image, such as ``x.png`` or ``x_mask.png`` of ``x``."""
    every = {_stem(folder, path) for path in paths}
    others = {_stem(folder, path) for path in paths if path.suffix.lower() != ".png"}

    def is_mask(path: Path) -> bool:
        stem, suffix = _stem(folder, path), path.suffix.lower()
        bare = _bare(stem)
        return (suffix == ".png" and stem in others) or (
            suffix in MASK_SUFFIXES and bare != stem and bare in every
        )

    return [path for path in paths if not is_mask(path)]


def _nothing_found(source: Path) -> str:
    if any(_files(folder, (".jpg", ".jpeg")) for folder in [_folder(source, MASK_FOLDERS)] if folder):
        return f"{source}: the masks are JPEG, which blurs class ids; export them as PNG"
    return (
        f"{source}: no image with a mask; expected images and masks of the same names in {IMAGE_FOLDERS[0]} "
        f"or {IMAGE_FOLDERS[1]}, and {MASK_FOLDERS[1]} or {MASK_FOLDERS[2]}; docs/data.md shows all layouts"
    )


def _folders(source: Path) -> dict[str, Path]:
    """Return the subfolders of a folder by their names in lower case."""
    return {path.name.lower(): path for path in sorted(source.iterdir()) if path.is_dir()}


def _folder(source: Path, names: tuple[str, ...]) -> Path | None:
    folders = _folders(source)
    return next((folders[name.lower()] for name in names if name.lower() in folders), None)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def _stem(folder: Path, path: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _bare(stem: str) -> str:
    """Return a mask's name without an ending such as ``_mask``."""
    ending = next((ending for ending in MASK_ENDINGS if stem.lower().endswith(ending)), "")
    return stem[: len(stem) - len(ending)]


def _match(
    folder: Path, images: dict[str, Path], *, beside: bool
) -> tuple[dict[str, dict[str, Path]], tuple[str, ...]]:
    """Return the masks of every image, and the names of the classes if masks are named after classes."""
    masks = {_stem(folder, path): path for path in _files(folder, MASK_SUFFIXES)}
    direct = {
        name: {"": path}
        for stem, path in masks.items()
        for name in [stem if stem in images and images[stem] != path else _bare(stem)]
        if name in images and images[name] != path
    }
    if direct or beside:
        return direct, ()
    masks_of: dict[str, dict[str, Path]] = {}
    for name, path in masks.items():
        first, _, rest = name.partition("/")
        parent, _, last = name.rpartition("/")
        if rest in images:  # CLASS/x
            masks_of.setdefault(rest, {})[first] = path
        elif parent in images:  # x/CLASS
            masks_of.setdefault(parent, {})[last] = path
    return masks_of, tuple(sorted({name for named in masks_of.values() for name in named}))


def part_of(name: str) -> str | None:
    """Return ``train`` or ``val`` if a picture lies in a folder of that or a similar name, else None."""
    first = name.partition("/")[0].lower()
    return "train" if first in TRAIN_PARTS else "val" if first in TEST_PARTS else None
