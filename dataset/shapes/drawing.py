"""Drawing a data set into a folder, which has a fingerprint of its settings and is complete or absent.

Pictures are PNG files: a JPEG may be decoded differently on another machine, and the pixels must not differ.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fewseg.util.errors import DataError

FINGERPRINT_FILE = "shapes.json"


def draw_once(
    root: str | Path, title: str, fingerprint: Mapping[str, str | int], draw: Callable[[Path], None]
) -> bool:
    """Draw a data set, unless an identical one is there already.

    Args:
        root: a missing or empty folder, or one drawn with the same settings, which is not changed.
        title: name of the data set in messages.
        fingerprint: name, version and settings of the data set.
        draw: writes the data set into an empty folder.

    Returns:
        Whether it was drawn.

    Raises:
        DataError: the folder holds anything else or cannot be written.
    """
    root = Path(root)
    if _holds(root, title, fingerprint):
        return False
    folder: Path | None = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        folder.chmod(0o755)  # mkdtemp creates folders that only their owner can read
        draw(folder)
        (folder / FINGERPRINT_FILE).write_text(json.dumps(fingerprint, indent=1) + "\n", encoding="utf-8")
        folder.replace(root)
        folder = None
    except OSError as failure:
        raise DataError(
            f"{root}: cannot be written ({failure.strerror or failure}); free space or choose another folder"
        ) from failure
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return True


def _holds(root: Path, title: str, fingerprint: Mapping[str, str | int]) -> bool:
    """Whether ``root`` holds this data set, False if it is empty; DataError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        other = json.loads((root / FINGERPRINT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"{root}: holds something other than {title}; choose another folder or empty it"
        ) from None
    if other != fingerprint:
        settings = (
            " ".join(f"{key}={value}" for key, value in other.items()) if isinstance(other, dict) else other
        )
        raise DataError(
            f"{root}: holds drawings of other settings ({settings}) than those of {title}; choose another "
            "folder or delete it"
        )
    return True


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture, uint8 [H,W,3]."""
    Image.fromarray(picture).save(path, compress_level=1)


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask, uint8 [H,W], with VOC's palette."""
    image = Image.fromarray(mask, mode="P")
    image.putpalette(voc_palette().tobytes())
    image.save(path)


def voc_palette() -> np.ndarray:
    """Return VOC's colours, uint8 [256,3]: bits 0, 3, 6 of an id give the highest bits of red, and so on."""
    ids = np.arange(256)
    colour = np.zeros((256, 3), np.int64)
    for bit in range(8):
        colour[:, bit % 3] |= (ids >> bit & 1) << (7 - bit // 3)
    return colour.astype(np.uint8)


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a list or the class names, one per line."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
