"""Mined labels, which ``tools/mine_latent_classes.py`` writes and training reads.

A folder holds ``labels/<image>.png``, uint8 at the image's size, with 0 background, j the j-th latent class
and 255 void, and ``mined.json``, which says what they were made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewseg.dataset.episodes.sampling import EpisodeSpec, generator
from fewseg.dataset.lists.image_lists import ImageList
from fewseg.dataset.loading.auxiliary import Names
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.mask import check_same_size, read_image, read_mask
from fewseg.util.errors import DataError
from fewseg.util.files import require_inside, write_bytes, write_text

FACTS = "mined.json"
LABELS = "labels"
MOST = 253
"""The largest number of latent classes that an 8-bit label can hold."""


@dataclass(frozen=True)
class MinedImages:
    """Images with mined labels, drawn for every episode independently of its class.

    Attributes:
        folder: folder of the labels.
        names: names of the images.
        count: images per way, M.
        extra: name -> path of those images that are not training images.
    """

    folder: Path
    names: tuple[str, ...]
    count: int
    extra: Mapping[str, str]
    labelled = True

    @classmethod
    def open(
        cls, folder: str | Path, count: int, expected: Mapping[str, Any], source: ImageList
    ) -> MinedImages:
        """Open a folder of mined labels.

        Args:
            folder: path of the folder.
            count: images per way, M.
            expected: facts in which the folder must agree with the training, such as the fold.
            source: the training images.

        Raises:
            DataError: the folder is missing, was mined for another fold or list, has no more than ``count``
                images, or names a path outside of it.
        """
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            names, extra = tuple(facts["images"]), dict(facts.get("extra", {}))
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(
                f"{folder}: holds no mined labels ({FACTS}); make them by tools/mine_latent_classes.py"
            ) from None
        for name in names:
            require_inside(name, folder / FACTS)
        wrong = [
            f"{key} {facts.get(key)}, not {value}"
            for key, value in expected.items()
            if facts.get(key) != value
        ]
        if wrong:
            raise DataError(f"{folder}: was mined for {'; '.join(wrong)}; mine anew for this training")
        unknown = [name for name in names if name not in source.position and name not in extra]
        if unknown:
            raise DataError(
                f"{folder}: {len(unknown)} of its {len(names)} images, first {unknown[0]}, are not in the "
                "training list; mine anew for this training"
            )
        if len(names) <= count:
            raise DataError(f"{folder}: has {len(names)} images; lower Data.auxiliary, which is {count}")
        return cls(folder, names, count, extra)

    def draw(self, spec: EpisodeSpec, *key: int | str) -> Names:
        """Draw the images of an episode from all images except its query."""
        rng = generator("mined", *key)
        return tuple(
            tuple(self._others(rng.sample(self.names, self.count + 1), spec)) for _ in spec.class_ids
        )

    def read(self, store: ImageStore, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return an image and its mined label."""
        image = read_image(self.extra[name]) if name in self.extra else store.image(name)
        path = self.folder / LABELS / f"{name}.png"
        label = read_mask(path)
        check_same_size(image, label, name, path)
        return image, label

    def _others(self, drawn: Iterable[str], spec: EpisodeSpec) -> list[str]:
        return [name for name in drawn if name != spec.query][: self.count]


def write_label(folder: Path, name: str, label: np.ndarray) -> None:
    """Write the mined label of an image, uint8 [H,W]."""
    _, encoded = cv2.imencode(".png", label)
    path = folder / LABELS / f"{name}.png"
    write_bytes(path, encoded.tobytes(), DataError)


def mined_by(folder: str | Path) -> str | None:
    """Return the hash of the checkpoint that a folder's labels were mined by; None where there are none."""
    return (read_facts(folder) or {}).get("checkpoint_hash")


def read_facts(folder: str | Path) -> dict[str, Any] | None:
    """Return what the labels of a folder were made from; None where there are no complete ones."""
    try:
        facts = json.loads((Path(folder) / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what the labels were made from. This comes last, so that a folder with the file is complete."""
    write_text(folder / FACTS, json.dumps(facts, indent=1) + "\n", DataError)
