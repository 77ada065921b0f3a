"""Encodings of single images, put together to batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from fewseg.model.contract import Encoding


def stack_encodings(encodings: Sequence[Encoding]) -> Encoding:
    """Join encodings along the images; a tensor whose last axis differs is padded with zeros at its end."""
    return {name: _join([encoding[name] for encoding in encodings]) for name in encodings[0]}


def _join(tensors: Sequence[Tensor]) -> Tensor:
    longest = max(t.shape[-1] for t in tensors) if tensors[0].ndim > 1 else 0
    if longest:
        tensors = [t if t.shape[-1] == longest else pad(t, (0, longest - t.shape[-1])) for t in tensors]
    return torch.cat(list(tensors))


def group_encoding(encoding: Encoding, *axes: int) -> Encoding:
    """Split the image axis of every tensor into ``axes``, such as (queries, shots)."""
    return {name: tensor.reshape(*axes, *tensor.shape[1:]) for name, tensor in encoding.items()}


def repeat_encoding(encoding: Encoding, times: int) -> Encoding:
    """Repeat every image ``times`` times in place: a, b -> a, a, b, b."""
    return {name: tensor.repeat_interleave(times, 0) for name, tensor in encoding.items()}
