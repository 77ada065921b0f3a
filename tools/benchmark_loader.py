"""Measure the training loader against a plain re-creation of the published chain.

The plain chain works as published code does: float32 images, one pass over the image and each label per
transform, labels found by search, base annotations read from files of their own. Both load the same batches
by turns in this one process, on one thread.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from fewseg.dataset.classes.fold import Fold, open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.episodes.sampling import generator
from fewseg.dataset.loading.few_shot import EpisodeDataset
from fewseg.dataset.reading.mask import read_mask
from fewseg.dataset.reading.transform import MEAN, STD, TrainTransform
from fewseg.util.progress import progress
from tools.timing import by_turns

SIZE = 473
BATCH = 4
REPEATS = 3
"""Number of times that each chain loads a batch; the fastest counts, which other load affects least."""

Sample = list[np.ndarray]


class PlainChain:
    """The published training chain, step by step; grey masks and base annotations are put into ``folder``."""

    def __init__(self, episodes: EpisodeDataset, folder: Path) -> None:
        self.episodes, self.folder = episodes, folder
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
        image, *labels = _crop(sample, rng)
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


def _crop(sample: Sample, rng: random.Random) -> Sample:
    height, width = (max(SIZE - side, 0) for side in sample[1].shape)
    if height or width:
        border = (height // 2, height - height // 2, width // 2, width - width // 2)
        sample = [
            cv2.copyMakeBorder(x, *border, cv2.BORDER_CONSTANT, value=MEAN if x.ndim == 3 else 255)
            for x in sample
        ]
    total = np.sum(sample[1] == 1)
    for _ in range(32):
        top = rng.randint(0, sample[1].shape[0] - SIZE)
        left = rng.randint(0, sample[1].shape[1] - SIZE)
        if np.sum(sample[1][top : top + SIZE, left : left + SIZE] == 1) >= 0.85 * total:
            break
    return [x[top : top + SIZE, left : left + SIZE] for x in sample]


def draw_photographs(root: Path, images: int = 60, classes: int = 20) -> None:
    """Fill ``root`` with images of a photograph's size and detail, in VOC layout."""
    rng = np.random.default_rng(0)
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    rows, columns = np.mgrid[:375, :500]
    for i in range(images):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        image = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
        image = cv2.add(image, cv2.blur(rng.integers(0, 60, image.shape, np.uint8), (3, 3)))
        mask = np.zeros((375, 500), np.uint8)
        for class_id in (1 + i % classes, 1 + (3 * i + 1) % classes):
            middle, radius = rng.uniform(0.2, 0.8, 2) * mask.shape, rng.uniform(40, 110)
            distance = np.hypot(rows - middle[0], columns - middle[1])
            mask[distance < radius] = class_id
            mask[np.abs(distance - radius) < 2] = 255
        cv2.imwrite(str(root / f"JPEGImages/{i:04}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        Image.fromarray(mask).convert("P").save(root / f"SegmentationClass/{i:04}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"{i:04}\n" for i in range(images)))


def compare_loaders(fold: Fold, items: int = 200, cache_bytes: int = 0) -> dict[str, float]:
    """Load episodes with both chains by turns.

    Returns:
        ``plain`` and ``ours`` in episodes per second, their ``ratio``, and the largest ``difference`` of any
        normalised pixel between the two.
    """
    cv2.setNumThreads(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transform = TrainTransform(SIZE)
    ours = EpisodeDataset(
        fold.train_lists(1), fold.classes, transform, shot=1, seed=0, cache_bytes=cache_bytes
    )
    spent, difference = {"plain": 0.0, "ours": 0.0}, 0.0
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = PlainChain(ours, Path(folder))
            for first in progress(range(0, items, BATCH), "loading"):
                keys = [(item // len(ours), item % len(ours)) for item in range(first, first + BATCH)]
                load: dict[str, Callable[[], Any]] = {
                    "plain": partial(plain.batch, keys),
                    "ours": partial(ours.__getitems__, keys),
                }
                seconds, loaded = by_turns(load, REPEATS, warm_up=False, summary=min)
                spent = {name: spent[name] + seconds[name] for name in load}
                gap = loaded["plain"][0] - loaded["ours"].episode.query
                difference = max(difference, float(gap.abs().max()))
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(-1)
    rates = {name: -(-items // BATCH) * BATCH / seconds for name, seconds in spent.items()}
    return rates | {"ratio": rates["ours"] / rates["plain"], "difference": difference}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    parser.add_argument("--items", type=int, default=200, help="episodes to load with each chain")
    parser.add_argument("--root", type=Path, help="a data root in VOC layout; drawn images if not given")
    parser.add_argument("--list", type=Path, help="its training list")
    parser.add_argument("--cache-gib", type=float, default=0.0, help="memory for decoded images")


def run(args: argparse.Namespace) -> None:
    """Print the comparison."""
    protocol = load_protocol("bam", novel_in_train="background", small_classes="leave_out")
    with tempfile.TemporaryDirectory() as folder:
        root = args.root or Path(folder) / "photographs"
        if args.root is None:
            draw_photographs(root)
        fold = open_fold("pascal", root, 0, protocol, train_list=args.list)
        found = compare_loaders(fold, args.items, int(args.cache_gib * 2**30))
    print(f"published chain, re-created: {found['plain']:6.1f} episodes/s")
    print(f"this loader:                 {found['ours']:6.1f} episodes/s, {found['ratio']:.2f} times as many")
    print(f"largest difference of a normalised pixel: {found['difference']:.1e}")
