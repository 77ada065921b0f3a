"""A plain re-creation of how published code loads training episodes, for the benchmark to compare with.

It works on float32 images, passes over the image and over each label once per transform, finds labels by
search, and reads base annotations from files of their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from fewseg.dataset.episodes.sampling import generator
from fewseg.dataset.loading.few_shot import EpisodeDataset
from fewseg.dataset.reading.mask import read_mask
from fewseg.dataset.reading.transform import MEAN, STD

Sample = list[np.ndarray]


class PlainChain:
    """The published training chain, step by step.

    Args:
        episodes: the episodes that it loads.
        folder: where grey masks and base annotations are put.
        size: side of the images.
    """

    def __init__(self, episodes: EpisodeDataset, folder: Path, size: int) -> None:
        self.episodes, self.folder, self.size = episodes, folder, size
        self.source = episodes.lists.source
        for part in ("labels", "base"):
            (folder / part).mkdir()
        for i, mask in enumerate(self.source.masks):
            indices = read_mask(self.source.root / mask)
            cv2.imwrite(str(folder / f"labels/{i}.png"), indices)
            cv2.imwrite(str(folder / f"base/{i}.png"), episodes.split.base_table[indices])

    def __getitem__(self, key: tuple[int, int]) -> list[torch.Tensor]:
        """Load the episode that ``episodes`` has under ``key``."""
        spec, rng = self.episodes.spec(key), generator("augmentation", self.episodes.seed, *key)
        position = self.source.position[spec.query]
        image, label = self._read(position)
        np.unique(label)  # which classes the query can be asked for
        base = _imread(self.folder / f"base/{position}.png", cv2.IMREAD_GRAYSCALE)
        out = self._augment([image, _foreground(label, spec.class_ids[0]), base], rng)
        for name in spec.supports[0]:
            image, label = self._read(self.source.position[name])
            out += self._augment([image, _foreground(label, spec.class_ids[0])], rng)
        return out

    def batch(self, keys: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """Load several episodes."""
        return default_collate([self[key] for key in keys])

    def _read(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        image = _imread(self.source.root / self.source.images[position], cv2.IMREAD_COLOR)
        image = np.float32(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        return image, _imread(self.folder / f"labels/{position}.png", cv2.IMREAD_GRAYSCALE)

    def _augment(self, sample: Sample, rng: random.Random) -> list[torch.Tensor]:
        factor = 0.9 + 0.2 * rng.random()
        sample = _each(sample, lambda x, way: cv2.resize(x, None, fx=factor, fy=factor, interpolation=way))
        if rng.random() < 0.5:
            angle = -10 + 20 * rng.random()
            sample = _rotate(sample, angle)
        if rng.random() < 0.5:
            sample[0] = cv2.GaussianBlur(sample[0], (5, 5), 0)
        if rng.random() < 0.5:
            sample = _each(sample, lambda x, way: cv2.flip(x, 1))
        image, *labels = _crop(sample, self.size, rng)
        tensor = torch.from_numpy(image.transpose(2, 0, 1)).float()
        for channel, mean, std in zip(tensor, MEAN, STD, strict=True):
            channel.sub_(mean).div_(std)
        return [tensor, *(torch.from_numpy(label).long() for label in labels)]


def _imread(path: Path, flags: int) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    assert image is not None, path
    return image


def _foreground(label: np.ndarray, class_id: int) -> np.ndarray:
    wanted, void = np.where(label == class_id), np.where(label == 255)
    out = np.zeros_like(label)
    out[wanted[0], wanted[1]] = 1
    out[void[0], void[1]] = 255
    return out


def _each(sample: Sample, change: Callable[[np.ndarray, int], np.ndarray]) -> Sample:
    image, *labels = sample
    return [change(image, cv2.INTER_LINEAR), *(change(label, cv2.INTER_NEAREST) for label in labels)]


def _rotate(sample: Sample, angle: float) -> Sample:
    height, width = sample[0].shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)

    def turn(array: np.ndarray, way: int) -> np.ndarray:
        border = MEAN if array.ndim == 3 else 255
        constant, size = cv2.BORDER_CONSTANT, (width, height)
        return cv2.warpAffine(array, matrix, size, flags=way, borderMode=constant, borderValue=border)

    return _each(sample, turn)


def _crop(sample: Sample, size: int, rng: random.Random) -> Sample:
    height, width = (max(size - side, 0) for side in sample[1].shape)
    if height or width:
        border = (height // 2, height - height // 2, width // 2, width - width // 2)
        sample = [
            cv2.copyMakeBorder(x, *border, cv2.BORDER_CONSTANT, value=MEAN if x.ndim == 3 else 255)
            for x in sample
        ]
    total = np.sum(sample[1] == 1)
    for _ in range(32):
        top = rng.randint(0, sample[1].shape[0] - size)
        left = rng.randint(0, sample[1].shape[1] - size)
        if np.sum(sample[1][top : top + size, left : left + size] == 1) >= 0.85 * total:
            break
    return [x[top : top + size, left : left + size] for x in sample]
