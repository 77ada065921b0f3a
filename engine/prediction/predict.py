"""Segmenting a user's own images from a user's own annotated examples."""

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
from fewseg.util.errors import DataError, UserError
from fewseg.util.log import get_log

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_SHOWN = 20
"""Class ids that a message names."""


@dataclass(frozen=True)
class Example:
    """An annotated support.

    Attributes:
        image: RGB uint8 [H,W,3].
        mask: 1 the object, 0 all else, 255 void; uint8 [H,W].
    """

    image: np.ndarray
    mask: np.ndarray


def read_example(image_path: str | Path, mask_path: str | Path, class_id: int | None = None) -> Example:
    """Read a support and its mask, and tell the log how a doubtful mask was understood.

    Args:
        image_path: of the photograph.
        mask_path: of a mask of any kind; see ``dataset.reading.own_mask``.
        class_id: the object in a mask of class indices; may be left out where the mask shows one class.

    Raises:
        DataError: a file cannot be read, the sizes differ, or the mask shows no object, or several classes of
            which none is chosen.
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
    """Return the index of the object in a mask; the one object of a binary mask needs no choice."""
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


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return what the results of every image are called after: its name without suffix.

    Images that differ in their suffix alone keep it, so that no result replaces another's.
    """
    count = Counter(path.stem.casefold() for path in paths)
    names = [path.stem if count[path.stem.casefold()] == 1 else path.name for path in paths]
    different = len({name.casefold() for name in names}) == len(paths)
    return names if different else [path.name for path in paths]


def check_outputs(outputs: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Raise UserError if a file that will be written is one of those that are read."""
    read = {Path(path).resolve() for path in inputs}
    lost = next((path for path in outputs if path.resolve() in read), None)
    if lost is not None:
        raise UserError(f"{lost}: is read, and would be overwritten by a result; choose another --out")


class Segmenter:
    """A model that was shown examples of one class, and finds that class in any number of images.

    Args:
        model: where it is to run; put into evaluation mode.
        examples: as many as the model takes.
        resize: how images reach the network.
        auxiliary: further images that show the class, RGB uint8 [H,W,3], for a model that can use them.
        class_id: of the class, for a model that reads names of classes; see ``name_class``.
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
        """Return where the class is in ``image`` (RGB uint8 [H,W,3]): 1 there, 0 elsewhere, uint8 [H,W]."""
        query = self._input(image)
        encoded = self.model.encode_query(query)
        prediction = self.model.decode(encoded, self._supports, (query.shape[-2], query.shape[-1]))
        return label_map(prediction.logits, self.resize, *image.shape[:2])

    def _input(self, image: np.ndarray) -> Tensor:
        return self.resize.image(image)[None].to(self.model.device)

    def _encode(self, examples: Sequence[Example]) -> Iterator[Encoding]:
        """Yield the encodings of one example each, or of all in one batch if they depend on it."""
        together = len(examples) if self.model.batch_dependent else 1
        for first in range(0, len(examples), together):
            batch = examples[first : first + together]
            image = torch.cat([self._input(example.image) for example in batch])
            mask = np.stack([self.resize.label(example.mask) for example in batch])
            class_id = torch.full((len(batch),), self.class_id, device=image.device)
            yield self.model.encode_support(image, torch.from_numpy(mask).long().to(image.device), class_id)
