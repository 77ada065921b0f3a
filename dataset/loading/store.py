"""Images and masks of a list by position, cached in memory within a budget."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from fewseg.dataset.lists.image_lists import OBJECT_FOLDER, ImageList, check_mask
from fewseg.dataset.reading.mask import check_same_size, read_image, read_mask, read_pair

_OBJECT_FOLDERS = (f"{OBJECT_FOLDER}Aug", OBJECT_FOLDER)
"""Folders of the numbers of objects: PANet's, which also covers SBD, then VOC's."""


class ImageStore:
    """Reads pairs of image and mask.

    Pairs are cached until the budget is full. All images are equally likely to be needed again, so no cached
    pair is ever replaced by a newer one.

    Attributes:
        source: the list of the images.
        cache_bytes: cache budget of this process in bytes; every loader worker has its own.
        classes: number of classes besides the background, with which every mask that is read is compared;
            None: it is not.
    """

    def __init__(self, source: ImageList, cache_bytes: int = 0, classes: int | None = None) -> None:
        self.source = source
        self.cache_bytes = cache_bytes
        self.classes = classes
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._used = 0

    def pair(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image uint8 [H,W,3] and mask [H,W] of class ids; the caller must not change them.

        The mask is uint8, or uint16 where the list has ``class_ids``.

        Raises:
            DataError: one of them is missing, unreadable or of another size, or the mask holds a label
                outside the classes.
        """
        if position in self._kept:
            return self._kept[position]
        image_path = self.source.root / self.source.images[position]
        mask_path = self.source.root / self.source.masks[position]
        image, mask = read_pair(image_path, mask_path)
        mask = self.source.with_class_id(position, mask)
        if self.classes is not None:
            check_mask(mask_path, mask, self.classes)
        size = image.nbytes + mask.nbytes
        if self._used + size <= self.cache_bytes:
            self._used += size
            self._kept[position] = (image, mask)
        return image, mask

    def image(self, name: str) -> np.ndarray:
        """Return an image by its name without reading its mask, uint8 [H,W,3]; the caller must not change it.

        Raises:
            DataError: it is missing or unreadable.
        """
        position = self.source.position[name]
        if position in self._kept:
            return self._kept[position][0]
        return read_image(self.source.root / self.source.images[position])

    def objects(self, name: str) -> np.ndarray | None:
        """Return the numbers of all objects in an image, uint8 [H,W], 0 between them and 255 void.

        They lie in ``SegmentationObject``, as VOC has them; None where there is no such file.

        Raises:
            DataError: the file is unreadable, or of another size than the image.
        """
        position, root = self.source.position[name], self.source.root
        _, *below = PurePosixPath(self.source.masks[position]).parts
        paths = (root.joinpath(folder, *below) for folder in _OBJECT_FOLDERS)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None
        objects = read_mask(path)
        check_same_size(self.pair(position)[0], objects, root / self.source.images[position], path)
        return objects

    def named(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the pair of an image by its name."""
        return self.pair(self.source.position[name])
