"""Find images and masks in a folder of one's own, however they are laid out.

    index masks       images/x.jpg, masks/x.png         a class id per pixel
    side by side      x.jpg, x.png                      likewise, in one folder
    a folder a class  images/x.jpg, masks/CLASS/x.png   0 and anything else
    a folder an image images/x.jpg, masks/x/CLASS.png   likewise

Index masks of 0 and 255 alone are binary masks of one class (``folder.told_apart``).

``images`` and ``masks`` may have any of the usual names; VOC's layout is one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from util.errors import DataError

IMAGE_FOLDERS = ("JPEGImages", "images", "image", "imgs", "img", "photos")
MASK_FOLDERS = (
    *("SegmentationClassAug", "SegmentationClass", "masks", "mask", "labels", "label"),
    *("annotations", "annotation", "gt", "segmentations"),
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
    """What a folder holds.

    Attributes:
        source: the folder.
        pictures: images with masks, by name.
        class_folders: names of the classes that masks are named after; empty with index masks.
        without_mask: images that have none.
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
    images = _folder(source, IMAGE_FOLDERS)
    masks = _folder(source, MASK_FOLDERS)
    if images is None or masks is None:
        images = masks = source
    beside = images == masks
    photographs = _files(images, IMAGE_SUFFIXES)
    if beside:  # a .png with a photograph of the same name is its mask
        others = {_stem(images, path) for path in photographs if path.suffix.lower() != ".png"}
        photographs = [p for p in photographs if p.suffix.lower() != ".png" or _stem(images, p) not in others]
    by_name = {_stem(images, path): path for path in photographs}
    if len(by_name) < len(photographs):
        twice = next(p for p in photographs if by_name[_stem(images, p)] != p)
        raise DataError(f"{twice}: another image has the same name with another suffix; rename one")
    found, classes = _match(masks, by_name, beside)
    if not found:
        raise DataError(
            f"{source}: no image with a mask; expected images and masks of the same names in "
            f"{IMAGE_FOLDERS[0]} or {IMAGE_FOLDERS[1]}, and {MASK_FOLDERS[1]} or {MASK_FOLDERS[2]}"
        )
    pictures = [Picture("_".join(name.split()), by_name[name], found[name]) for name in sorted(found)]
    without = tuple(path for name, path in sorted(by_name.items()) if name not in found)
    return OwnLayout(source, tuple(pictures), classes, without)


def _folder(source: Path, names: tuple[str, ...]) -> Path | None:
    if not source.is_dir():
        raise DataError(
            f"{source}: {'a file, not a folder' if source.exists() else 'no such folder'}; give --source"
        )
    return next((source / name for name in names if (source / name).is_dir()), None)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def _stem(folder: Path, path: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _match(
    folder: Path, images: dict[str, Path], beside: bool
) -> tuple[dict[str, dict[str, Path]], tuple[str, ...]]:
    """Return the masks of every image, and the class names where masks are named after classes."""
    masks = {_stem(folder, path): path for path in _files(folder, MASK_SUFFIXES)}
    direct = {name: {"": path} for name, path in masks.items() if name in images and images[name] != path}
    if direct or beside:
        return direct, ()
    found: dict[str, dict[str, Path]] = {}
    for name, path in masks.items():
        first, _, rest = name.partition("/")
        parent, _, last = name.rpartition("/")
        if rest in images:  # CLASS/x
            found.setdefault(rest, {})[first] = path
        elif parent in images:  # x/CLASS
            found.setdefault(parent, {})[last] = path
    return found, tuple(sorted({name for named in found.values() for name in named}))
