"""Training episodes and test images that are read per second, beside what the networks take.

The loader is compared with a plain re-creation of the published chain. Both load the same batches by turns in
this one process, on one thread.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from fewseg.dataset.classes.fold import Fold, open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.loading.few_shot import EpisodeDataset
from fewseg.dataset.reading.transform import TrainTransform
from fewseg.util.progress import progress
from tools.benchmarks import evaluation, step
from tools.benchmarks.forms import FORMS, Form
from tools.benchmarks.machine import add_machine, described, device_of
from tools.benchmarks.published_loading import PlainChain
from tools.episode_parts import QUERY
from tools.timing import by_turns, draw_episode

BATCH = 4
READ = 60
"""Test images that are read."""


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


def compare_loaders(
    fold: Fold, items: int = 200, cache_bytes: int = 0, *, size: int = 473, rounds: int = 3
) -> dict[str, float]:
    """Load episodes with both chains by turns.

    Args:
        fold: gives the episodes.
        items: number of episodes.
        cache_bytes: memory for decoded images.
        size: side of the images.
        rounds: times that each batch is loaded; the fastest counts, which other load affects least.

    Returns:
        ``plain`` and ``ours`` in episodes per second, their ``ratio``, the largest ``difference`` of any
        normalised pixel between the two, and the test images that are read per second, ``images``.
    """
    cv2.setNumThreads(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transform = TrainTransform(size)
    ours = EpisodeDataset(
        fold.train_lists(1), fold.classes, transform, shot=1, seed=0, cache_bytes=cache_bytes
    )
    spent, difference = {"plain": 0.0, "ours": 0.0}, 0.0
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = PlainChain(ours, Path(folder), size)
            for first in progress(range(0, items, BATCH), "loading"):
                keys = [(item // len(ours), item % len(ours)) for item in range(first, first + BATCH)]
                load: dict[str, Callable[[], Any]] = {
                    "plain": partial(plain.batch, keys),
                    "ours": partial(ours.__getitems__, keys),
                }
                seconds, loaded = by_turns(load, rounds, warm_up=False, summary=min)
                spent = {name: spent[name] + seconds[name] for name in load}
                gap = loaded["plain"][0] - loaded["ours"].episode.query
                difference = max(difference, float(gap.abs().max()))
        images = read_rate(fold, rounds)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(-1)
    rates = {name: -(-items // BATCH) * BATCH / seconds for name, seconds in spent.items()}
    return rates | {"ratio": rates["ours"] / rates["plain"], "difference": difference, "images": images}


def read_rate(fold: Fold, rounds: int) -> float:
    """Return how many images an evaluation reads per second, with labels; they are those of training."""
    episodes = EpisodeSet(replace(fold, val_list=fold.train_list), ())
    names = episodes.fold.val_images.names[:READ]

    def read() -> None:
        for name in names:
            episodes.load_query(name)

    seconds, _ = by_turns({"read": read}, rounds, warm_up=False, summary=min)
    return len(names) / seconds["read"]


def eaten(device: torch.device, form: Form, size: int, rounds: int, **options: Any) -> tuple[float, float]:
    """Return the training episodes and the test images that BAM takes per second."""
    batch = 8 if device.type == "cuda" else 2
    model = step.network(device, size, **options).to(memory_format=torch.channels_last)
    actions = step.steps_of(model, draw_episode(size, 1, batch).to(device), form)
    training, _ = by_turns({step.OURS: form.rounded(actions[step.OURS])}, rounds, device=device)
    found = evaluation.Bench(device, 1, batch, size, **options).parts({"form": form}, rounds)
    return batch / training[step.OURS], 1 / found["form", QUERY]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    add_machine(parser, rounds=3)
    parser.add_argument("--items", type=int, default=200, help="episodes to load with each chain")
    parser.add_argument("--root", type=Path, help="a data root in VOC layout; drawn images if not given")
    parser.add_argument("--list", type=Path, help="its training list")
    parser.add_argument("--cache-gib", type=float, default=0.0, help="memory for decoded images")
    parser.add_argument("--backbone", default="resnet50", help="of BAM, which takes the images")


def run(args: argparse.Namespace) -> None:
    """Print the comparison, and the number of workers that keep the device busy."""
    device = device_of(args)
    print(described(device))
    protocol = load_protocol("bam", novel_in_train="background", small_classes="leave_out")
    with tempfile.TemporaryDirectory() as folder:
        root = args.root or Path(folder) / "photographs"
        if args.root is None:
            draw_photographs(root)
        fold = open_fold("pascal", root, 0, protocol, train_list=args.list)
        cache = int(args.cache_gib * 2**30)
        found = compare_loaders(fold, args.items, cache, size=args.size, rounds=args.rounds)
    print(f"published chain, re-created: {found['plain']:8.1f} episodes/s")
    print(f"this loader:                 {found['ours']:8.1f} episodes/s, {found['ratio']:.2f} times as many")
    print(f"reading for an evaluation:   {found['images']:8.1f} images/s")
    print(f"largest difference of a normalised pixel: {found['difference']:.1e}")
    name = "compiled-bfloat16" if device.type == "cuda" else "float32"
    episodes, images = eaten(device, FORMS[name], args.size, args.rounds, backbone=args.backbone)
    for what, rate, loaded in (("episodes", episodes, "ours"), ("images", images, "images")):
        workers = math.ceil(rate / found[loaded])
        work = "training" if what == "episodes" else "encoding"
        print(f"{work}, BAM, {name}: takes {rate:.1f} {what}/s, which {workers} processes can load")
