"""The rule by which the weights and inputs of recorded runs are made.

A record names its inputs as ``["image", 20, 2, 97, 97]``: a function of this file and its arguments. Weights
follow from their published names and shapes. Everything is drawn from ``numpy.random.RandomState``, whose
streams are frozen, so that the same numbers come out on every machine and with every release of NumPy. A
change of this file invalidates every record.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np


def make(spec: list) -> np.ndarray:
    """Return the input that a record names. Words among its arguments, but for ignore=None, are remarks."""
    name, *arguments = spec
    remarks = [argument for argument in arguments if isinstance(argument, str)]
    options = {"ignore": None} if any(remark.startswith("ignore=None") for remark in remarks) else {}
    return GENERATORS[name](*[argument for argument in arguments if argument not in remarks], **options)


def fill_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the value of the checkpoint entry ``name`` with ``shape``, float32, or int64 for a counter."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if leaf == "running_mean":
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if leaf == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) >= 2:  # convolution, linear layer, embedding
        drawn = rng.standard_normal(shape)
        drawn *= np.sqrt(
            2.0 / int(np.prod(shape[1:]))
        )  # in place: OSLSM's largest layer has 103 million weights
        return drawn.astype(np.float32)
    if leaf == "weight":  # scale of a normalisation layer
        return rng.uniform(0.3, 0.7, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)  # bias and the rest


def image(seed: int, batch: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return images as if normalised, float32 [batch,channels,height,width].

    Cells of 8 pixels in one colour and fine noise on top, so that coarse and fine features carry signal.
    """
    rng = np.random.RandomState(seed)
    cells = rng.standard_normal((batch, channels, -(-height // 8), -(-width // 8)))
    coarse = cells.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width]
    fine = rng.standard_normal((batch, channels, height, width))
    return (coarse + 0.3 * fine).astype(np.float32)


def mask(seed: int, batch: int, height: int, width: int, ignore: int | None = 255) -> np.ndarray:
    """Return binary masks, int64 [batch,height,width]: an ellipse each, ``ignore`` in the two bottom rows."""
    rng = np.random.RandomState(seed)
    ys, xs = np.mgrid[0:height, 0:width]
    out = np.zeros((batch, height, width), dtype=np.int64)
    for item in out:
        cy, cx = rng.uniform(0.35, 0.65, 2) * (height, width)
        ry, rx = rng.uniform(0.2, 0.35, 2) * (height, width)
        item[((ys - cy) / ry) ** 2 + ((xs - cx) / rx) ** 2 <= 1.0] = 1
        if ignore is not None:
            item[-2:, :] = ignore
    return out


def labels(
    seed: int, batch: int, height: int, width: int, classes: int, ignore: int | None = 255
) -> np.ndarray:
    """Return labels 0..classes-1 in cells of 16 pixels, int64 [batch,height,width]; ``ignore`` as in mask."""
    rng = np.random.RandomState(seed)
    cells = rng.randint(0, classes, (batch, -(-height // 16), -(-width // 16)))
    out = cells.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width].astype(np.int64)
    if ignore is not None:
        out[:, -2:, :] = ignore
    return out


def prediction_and_target(rule: dict, seed: int, absent: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return two label maps that agree in six pixels of ten, [height,width] each.

    Args:
        rule: the record's ``size`` and number of ``ways``.
        seed: of this pair.
        absent: whether the target does not show the first class.
    """
    height, width = rule["size"]
    agree = np.random.RandomState(seed).rand(height, width) < 0.6
    predicted = labels(seed + 1, 1, height, width, rule["ways"] + 1, None)[0]
    target = labels(seed + 2, 1, height, width, rule["ways"] + 1, 255)[0]
    predicted = np.where(agree & (target != 255), target, predicted)
    if absent:
        target[target == 1] = 0
    return predicted, target


GENERATORS: dict[str, Callable[..., np.ndarray]] = {"image": image, "mask": mask, "labels": labels}
