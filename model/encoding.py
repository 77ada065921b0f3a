"""Encodings of single images: their common keys, and functions that combine encodings to batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

Encoding = dict[str, Tensor]
"""Named tensors whose first axis is the images. A tensor may be padded with zeros along its last axis."""

GRAM = "gram"
"""Encodings: Gram matrix [B,C,C] of an image's low-level feature, which describes its scene."""

BASE_LOGITS = "base"
"""Query encodings and parts of a prediction: logits of the base learner [B,1+classes,h,w]."""

CLASS_ID = "class_id"
"""Support encodings: dataset id of the class that is annotated, int64 [B], in main memory."""

QUERY_NUMBER = "query_number"
"""Query encodings in training: an index that identifies a query image in all epochs, int64 [B], in main
memory."""

SHOT_WEIGHTS = "shot_weights"
"""Guidance: weights of the supports [B,K], with which the ensemble averages scene distances."""

SHOT_LOGITS = "shot_logits"
"""Parts of a prediction: logits of every shot [B,K,2,h,w], which are upsampled before they are joined."""

ROUND_LOGITS, CHOSEN_ROUND = "round_logits", "round"
"""Parts of an adapted prediction: the logits of the unadapted model and of every round [B,1+R,2,H,W], and the
number of the round that is returned, 0 for the unadapted model, int64 [B]."""

LOGITS = "logits"
"""The name by which ``Map.part`` refers to the logits of a prediction itself."""

ADJUSTED = "adjusted"
"""Parts of a prediction with an ensemble, outside training: the meta-learner's probabilities after the scene
distance was mixed in, [B,2,h,w]."""

META_LOGITS = "meta"
"""Parts of a prediction with an ensemble: the meta-learner's own logits, [B,2,H,W]."""


def stack_encodings(encodings: Sequence[Encoding]) -> Encoding:
    """Concatenate encodings along the image axis; tensors are padded with zeros to the same last axis."""
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
