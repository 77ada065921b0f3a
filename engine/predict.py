"""Segmenting a user's own images from a user's own annotated examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dataset.mask import check_same_size, read_image, read_mask
from dataset.split import VOID
from dataset.transform import Resize
from engine.panels import label_map
from model.fewshot import FewShotModel
from model.interface import Encoding
from model.layer.encoding import group_encoding, stack_encodings
from util.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Example:
    """An annotated support.

    Attributes:
        image: RGB uint8 [H,W,3].
        mask: 1 the object, 0 all else, 255 void; uint8 [H,W].
    """

    image: np.ndarray
    mask: np.ndarray


def read_example(image_path: str | Path, mask_path: str | Path) -> Example:
    """Read a support and its mask.

    Every value but 0 is the object. A mask with other values beside 255 keeps 255 as void, as data sets have
    it; one of 0 and 255 only is black and white.

    Raises:
        DataError: a file cannot be read, the sizes differ, or the mask shows no object.
    """
    image, values = read_image(image_path), read_mask(mask_path)
    check_same_size(image, values, image_path, mask_path)
    objects = (values > 0) & (values < VOID)
    mask = np.where(values == VOID, VOID, objects).astype(np.uint8) if objects.any() else values // VOID
    if not (mask == 1).any():
        raise DataError(f"{mask_path}: marks no object: every pixel is 0; draw the object in another value")
    return Example(image, mask)


def query_paths(path: str | Path) -> list[Path]:
    """Return the image at ``path``, or all images in the folder there, by name.

    Raises:
        DataError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise DataError(
            f"{path}: no image there; name an image or a folder of images ({' '.join(IMAGE_SUFFIXES)})"
        )
    return found


class Segmenter:
    """A model that was shown examples of one class, and finds that class in any number of images.

    Args:
        model: on ``device``; put into evaluation mode.
        examples: as many as the model takes.
        resize: how images reach the network.
        device: where the network runs.
        auxiliary: further images that show the class, RGB uint8 [H,W,3], for a model that can use them.
    """

    def __init__(
        self,
        model: FewShotModel,
        examples: Sequence[Example],
        resize: Resize,
        device: torch.device,
        auxiliary: Sequence[np.ndarray] = (),
    ) -> None:
        self.model, self.resize, self.device = model.eval(), resize, device
        with torch.inference_mode():
            encodings = list(self._encode(examples))
            self._supports = group_encoding(stack_encodings(encodings), 1, 1, len(examples))
            if auxiliary:
                further = [
                    model.encode_auxiliary(resize.image(image)[None].to(device)) for image in auxiliary
                ]
                self._supports |= group_encoding(stack_encodings(further), 1, 1, len(further))

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return where the class is in ``image`` (RGB uint8 [H,W,3]): 1 there, 0 elsewhere, uint8 [H,W]."""
        query = self.resize.image(image)[None].to(self.device)
        prediction = self.model.decode(
            self.model.encode_query(query), self._supports, tuple(query.shape[-2:])
        )
        return label_map(prediction.logits, self.resize, *image.shape[:2])

    def _encode(self, examples: Sequence[Example]) -> Iterator[Encoding]:
        """Yield the encodings of one example each, or of all in one batch if they depend on it."""
        together = len(examples) if self.model.meta.batch_dependent else 1
        for first in range(0, len(examples), together):
            batch = examples[first : first + together]
            image = torch.stack([self.resize.image(example.image) for example in batch])
            mask = torch.stack(
                [torch.from_numpy(self.resize.label(example.mask)).long() for example in batch]
            )
            class_id = torch.zeros(len(batch), dtype=torch.int64)
            yield self.model.encode_support(*(t.to(self.device) for t in (image, mask, class_id)))
