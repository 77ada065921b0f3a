"""The form in which recorded arrays are carried in ``tests/parity/recorded``.

Labels and decisions (whole numbers, at most ``DISTINCT`` different ones) and arrays of at most ``KEPT``
entries are kept whole. Of any other array ``KEPT`` entries are kept, spread evenly over it. Their values are
not changed, so that they are compared within the same tolerance as the whole array.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

KEPT = 256
DISTINCT = 32
GOLDEN_SECTION = (math.sqrt(5) - 1) / 2

Arrays = dict[str, np.ndarray]


def pack(arrays: Arrays) -> bytes:
    """Return the thinned arrays as a safetensors file, the same bytes for the same arrays."""
    tensors, layouts = {}, {}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} holds entries that are not finite; those could not be told from left out ones"
            )
        if array.size <= KEPT:
            tensors[name] = np.ascontiguousarray(array)
            continue
        layouts[name] = {"shape": list(array.shape)}
        if _is_label(array):
            values, codes = np.unique(array, return_inverse=True)
            layouts[name]["values"] = [int(value) for value in values]
            tensors[name] = _packed_bits(codes.reshape(-1), _width(len(values)))
        else:
            tensors[name] = array[kept(array.shape)]
    # One entry of metadata, since the order of several is not fixed.
    return save(tensors, {"layouts": json.dumps(layouts)})


def unpack(path: Path) -> Arrays:
    """Return the arrays of a file that ``pack`` wrote, in their full shape, NaN where nothing was kept."""
    arrays = {}
    with safe_open(path, framework="numpy") as file:
        layouts = json.loads(file.metadata()["layouts"])
        for name in file.keys():  # noqa: SIM118 (a file is not iterable)
            stored = file.get_tensor(name)
            if name not in layouts:
                arrays[name] = stored
                continue
            shape = tuple(layouts[name]["shape"])
            if "values" in layouts[name]:
                values = np.array(layouts[name]["values"], np.float32)
                codes = _unpacked_bits(stored, _width(len(values)), math.prod(shape))
                arrays[name] = values[codes].reshape(shape)
            else:
                arrays[name] = np.full(shape, np.nan, stored.dtype)
                arrays[name][kept(shape)] = stored
    return arrays


def kept(shape: tuple[int, ...]) -> np.ndarray:
    """Return which entries of a large array are kept, bool of ``shape``.

    Steps of the golden section of the number of entries, modulo that number, visit places that are spread
    evenly over every axis. The two logits of a pixel, [B,2,H,W], are kept or left out together, since their
    difference decides.
    """
    cells = (shape[0], 1, *shape[2:]) if len(shape) == 4 and shape[1] == 2 else shape
    count = math.prod(cells)
    step = int(count * GOLDEN_SECTION)
    while math.gcd(step, count) != 1:
        step += 1
    chosen = np.zeros(count, bool)
    chosen[np.arange(KEPT) * step % count] = True
    return np.broadcast_to(chosen.reshape(cells), shape)


def _is_label(array: np.ndarray) -> bool:
    whole = (array == np.rint(array)).all() and array.min() >= 0 and array.max() <= 255
    return bool(whole) and len(np.unique(array)) <= DISTINCT


def _width(distinct: int) -> int:
    """Return the bits that tell ``distinct`` values apart."""
    return max(1, math.ceil(math.log2(distinct)))


def _packed_bits(codes: np.ndarray, width: int) -> np.ndarray:
    return np.packbits((codes[:, None] >> np.arange(width)) & 1)


def _unpacked_bits(stored: np.ndarray, width: int, count: int) -> np.ndarray:
    bits = np.unpackbits(stored, count=count * width).reshape(count, width)
    return bits.astype(np.int64) @ (1 << np.arange(width))
