"""The eight images that the recorded cases of ``data`` are about, drawn by the recorded rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.parity import inputs
from tests.parity.cases import load_case

LIST = "list.txt"


def draw_pictures(root: Path) -> None:
    """Write ``images/00.png``, ``labels/00.png`` and so on below ``root``, and their list."""
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    recipe = load_case("data", "val_transform")[1].contents["recipe"]
    for number, entry in enumerate(recipe):
        height, width = entry["size"]
        colours = 120 + 45 * inputs.image(5000 + number, 1, height, width)[0].transpose(1, 2, 0)
        pixels = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number:02}.png")
        classes = np.full(256, 255, np.uint8)
        classes[: len(entry["table"])] = entry["table"]
        label = classes[inputs.labels(5050 + number, 1, height, width, len(entry["table"]))[0]]
        Image.fromarray(label).save(root / f"labels/{number:02}.png")
    lines = [f"images/{number:02}.png labels/{number:02}.png" for number in range(len(recipe))]
    (root / LIST).write_text("\n".join(lines) + "\n")
