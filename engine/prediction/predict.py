"""Segmentation of a user's own images, given the user's annotated examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewseg.dataset.labels import VOID
from fewseg.dataset.reading.own_mask import MaskKind, OwnMask, read_own_pair
from fewseg.dataset.reading.transform import Resize
from fewseg.engine.evaluation.one_by_one import grouped
from fewseg.engine.reports.panels import label_map
from fewseg.model.contract import Encoding
from fewseg.model.fewshot import FewShotModel
from fewseg.model.waiting import sent
from fewseg.util.errors import DataError, UserError
from fewseg.util.log import get_log

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_SHOWN = 20
"""Largest number of class ids in a message."""


@dataclass(frozen=True)
class Example:
    """An annotated support.

    Attributes:
        image: RGB uint8 [H,W,3].
        mask: 1 for the object, 0 for all else, 255 for void; uint8 [H,W].
    """

    image: np.ndarray
    mask: np.ndarray


def read_example(image_path: str | Path, mask_path: str | Path, class_id: int | None = None) -> Example:
    """Read a support and its mask, and log how an ambiguous mask was interpreted.

    Args:
        image_path: path of the photograph.
        mask_path: path of a mask of any kind; see ``dataset.reading.own_mask``.
        class_id: class of the object in a mask of class indices; optional if the mask shows only one class.

    Raises:
        DataError: a file cannot be read, the sizes differ, the mask shows no object, or it shows several
            classes and ``class_id`` is None.
    """
    image, mask = read_own_pair(image_path, mask_path)
    chosen = _chosen_class(mask, class_id)
    doubt, log = mask.doubt(chosen), get_log("predict")
    if doubt:
        log.warning("%s: %s (taken for %s: %s)", mask.path, doubt, mask.kind.value, mask.shares(chosen))
    elif mask.kind is MaskKind.SOFT:
        log.info("%s: taken for %s: %s", mask.path, mask.kind.value, mask.shares(chosen))
    indices = np.where(mask.indices == VOID, VOID, mask.indices == chosen)
    return Example(image, indices.astype(np.uint8))


def _chosen_class(mask: OwnMask, class_id: int | None) -> int:
    """Return the class id of the object in a mask; a binary mask has only one object."""
    classes = mask.classes
    if not classes:
        raise DataError(f"{mask.path}: marks no object: no pixel is more than 0; draw the object in white")
    shown = ", ".join(str(i) for i in classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
    if mask.kind is MaskKind.INDICES and class_id is None and len(classes) > 1:
        raise DataError(
            f"{mask.path}: shows {len(classes)} classes ({shown}); say which one is the object: --class ID"
        )
    if mask.kind in (MaskKind.INDICES, MaskKind.ZERO_ONE) and class_id not in (None, *classes):
        raise DataError(
            f"{mask.path}: does not show class {class_id}, only {shown}; choose one by --class ID"
        )
    return classes[0] if class_id not in classes else class_id


def query_paths(path: str | Path) -> list[Path]:
    """Return the path of an image, or the paths of all images in a folder, sorted by name.

    Raises:
        DataError: there is no image.
    """
    path = Path(path)
    if path.is_dir():
        paths = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    else:
        paths = [path] if path.is_file() else []
    if not paths:
        raise DataError(
            f"{path}: no image there; name an image or a folder of images ({' '.join(IMAGE_SUFFIXES)})"
        )
    return paths


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return the name for the results of every image, which is its file name without suffix.

    Images that differ only in their suffix keep it, so that no result overwrites another.
    """
    count = Counter(path.stem.casefold() for path in paths)
    names = [path.stem if count[path.stem.casefold()] == 1 else path.name for path in paths]
    different = len({name.casefold() for name in names}) == len(paths)
    return names if different else [path.name for path in paths]


def check_outputs(outputs: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Raise UserError if an output file is also an input file."""
    read = {Path(path).resolve() for path in inputs}
    lost = next((path for path in outputs if path.resolve() in read), None)
    if lost is not None:
        raise UserError(f"{lost}: is read, and would be overwritten by a result; choose another --out")


class Segmenter:
    """Segments one class, given by examples, in any number of images.

    Args:
        model: the model on its device; it is set to evaluation mode.
        examples: the supports, as many as the model's number of shots.
        resize: how images are resized for the network.
        auxiliary: further images that show the class, RGB uint8 [H,W,3], for a model that can use them.
        class_id: id of the class, for a model that reads class names; see ``class_id_of``.
    """

    def __init__(
        self,
        model: FewShotModel,
        examples: Sequence[Example],
        resize: Resize,
        auxiliary: Sequence[np.ndarray] = (),
        class_id: int = 0,
    ) -> None:
        self.model, self.resize, self.class_id = model.eval(), resize, class_id
        with torch.inference_mode():
            further = [model.encode_auxiliary(self._input(image)) for image in auxiliary]
            self._supports = grouped([*self._encode(examples)], further, 1, 1)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Segment ``image`` (RGB uint8 [H,W,3]): 1 for the class, 0 elsewhere, uint8 [H,W]."""
        query = self._input(image)
        encoded = self.model.encode_query(query)
        prediction = self.model.decode(encoded, self._supports, (query.shape[-2], query.shape[-1]))
        return label_map(prediction.logits, self.resize, *image.shape[:2])

    def _input(self, image: np.ndarray) -> Tensor:
        return sent(self.resize.image(image)[None], self.model.device)

    def _encode(self, examples: Sequence[Example]) -> Iterator[Encoding]:
        """Yield the encoding of each example, or of all as one batch if the encodings depend on the batch."""
        together = len(examples) if self.model.batch_dependent else 1
        for first in range(0, len(examples), together):
            batch = examples[first : first + together]
            image = torch.cat([self._input(example.image) for example in batch])
            mask = np.stack([self.resize.label(example.mask) for example in batch])
            class_id = torch.full((len(batch),), self.class_id)
            label = sent(torch.from_numpy(mask).long(), image.device)
            yield self.model.encode_support(image, label, class_id)
