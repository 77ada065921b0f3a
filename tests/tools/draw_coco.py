"""Draw a synthetic COCO: ``python tests/tools/draw_coco.py --root /tmp/coco --images 5000``.

Category ids have COCO's gaps and names; images hold polygons, polygons of several parts, run-length crowds
and overlaps, about as many as COCO's (7 per image). Its measurements are those of ``--measure``.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fewseg.dataset.classes.shared_names import COCO_NAMES

GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORY_IDS = [i for i in range(1, 91) if i not in GAPS]
REAL_IMAGES = 82783 + 40504


def blob(rng: random.Random, width: int, height: int) -> list[float]:
    """An outline of 20 to 60 corners."""
    corners = rng.randint(20, 60)
    radius = rng.uniform(0.05, 0.3) * min(width, height)
    x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    outline: list[float] = []
    for i in range(corners):
        angle, reach = 2 * np.pi * i / corners, radius * rng.uniform(0.6, 1.0)
        outline += [round(float(x + reach * np.cos(angle)), 2), round(float(y + reach * np.sin(angle)), 2)]
    return outline


def crowd(rng: random.Random, width: int, height: int) -> dict:
    """A crowd: columns of alternating runs, uncompressed."""
    runs, left = [], width * height
    while left:
        run = min(left, rng.randint(1, 4 * height))
        runs.append(run)
        left -= run
    return {"size": [height, width], "counts": runs}


def draw_annotations(rng: random.Random, image: dict, first_id: int) -> list[dict]:
    found = []
    for number in range(rng.randint(1, 14)):
        many = number == 0 and rng.random() < 0.1
        outline = (
            crowd(rng, image["width"], image["height"])
            if many
            else [blob(rng, image["width"], image["height"]) for _ in range(rng.choice((1, 1, 1, 2)))]
        )
        found.append(
            {
                "id": first_id + number,
                "image_id": image["id"],
                "category_id": rng.choice(CATEGORY_IDS),
                "iscrowd": int(many),
                "area": round(rng.uniform(100, 50000), 2),
                "bbox": [0, 0, 1, 1],
                "segmentation": outline,
            }
        )
    return found


def draw_coco(root: Path, images: int, *, photographs: bool = True, seed: int = 0, side: int = 640) -> None:
    """Draw train2014 and val2014 (a third) with their annotations into ``root``."""
    rng = random.Random(seed)
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": c, "name": n} for c, n in zip(CATEGORY_IDS, COCO_NAMES[1:], strict=True)]
    for part, count in (("train2014", images - images // 3), ("val2014", images // 3)):
        (root / part).mkdir()
        listed, annotations = [], []
        for number in range(count):
            size = (side, side * 3 // 4) if rng.random() < 0.7 else (side * 3 // 4, side)
            name = f"COCO_{part}_{number + 1:012}.jpg"
            image = {"id": number + 1, "file_name": name, "width": size[0], "height": size[1]}
            listed.append(image)
            if number % 100 != 7:  # a few images without annotations, as COCO has them
                annotations += draw_annotations(rng, image, len(annotations) + 1)
            if photographs:
                Image.new("RGB", size, (number % 256, 90, 120)).save(root / part / name)
        rng.shuffle(annotations)
        text = json.dumps(
            {"info": {}, "images": listed, "annotations": annotations, "categories": categories}
        )
        (root / "annotations" / f"instances_{part}.json").write_text(text)


def measure(root: Path, workers: int | None) -> None:
    """Paint all masks of a drawn COCO and print speed and memory."""
    from fewseg.dataset.prepare.coco import paint_masks, read_annotations

    started, painted = time.perf_counter(), 0
    for part in ("train2014", "val2014"):
        annotations = read_annotations(root / "annotations" / f"instances_{part}.json")
        painted += len(paint_masks(annotations, root / "annotations" / part, workers=workers))
    seconds = time.perf_counter() - started
    rate = painted / seconds
    own, largest = (
        resource.getrusage(who).ru_maxrss / 2**10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{painted} images in {seconds:.1f} s: {rate:.0f} images/s; {REAL_IMAGES} would take "
        f"{REAL_IMAGES / rate / 60:.1f} min"
    )
    print(f"peak memory: {own:.0f} MiB here, {largest:.0f} MiB in the largest worker")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--measure", action="store_true")
    given = parser.parse_args()
    if not given.root.exists():
        draw_coco(given.root, given.images, photographs=False)
    if given.measure:
        measure(given.root, given.workers)
