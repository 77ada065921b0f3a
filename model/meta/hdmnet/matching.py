"""HDMNet's matching transformer (Peng et al., CVPR 2023, sections 3.2 and 3.3).

Query and support pass separately through three levels of self-attention. At every level the query is then
matched with the support object, and the matches are merged from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fewseg.model.layer.precision import in_float32
from fewseg.model.layer.resize import resize, resize_like
from fewseg.model.meta.hdmnet.transformer_block import (
    EncoderStage,
    Projections,
    TransformerLayer,
    layer_names,
    to_map,
    to_tokens,
)

LEVELS = 3
_HEADS = (2, 4, 8)
_REDUCTIONS = (4, 2, 1)
_TEMPERATURE = 0.1
_MAPS = 2


@in_float32
def _shares(query: Tensor, key: Tensor) -> Tensor:
    """Distribute unit tokens of the object [B,H,S,C] among those of the query [B,H,P,C] -> [B,H,P,S]."""
    return (query @ key.transpose(2, 3) / _TEMPERATURE).softmax(2)


class MatchLayer(TransformerLayer):
    """Attention between the query and the support object, by cosines.

    The softmax runs over the query positions, so every object token is distributed among them.
    """

    attention: Projections

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__(Projections(channels, heads), channels)

    def forward(self, x: Tensor, tokens: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Match a query with the support object.

        Args:
            x: query map [B,C,h,w].
            tokens: tokens of the support object [B,S,C].
            inside: 1 for a token, 0 for padding, [B,S].

        Returns:
            The matched map [B,C,h,w], and the mean score of every position with the object, [B,h,w].
        """
        grid, attention = tuple(x.shape[-2:]), self.attention
        query_tokens, tokens = to_tokens(x), self.norm1(tokens)
        query = normalize(attention.split(attention.query(self.norm1(query_tokens))), dim=3)
        key = normalize(attention.split(attention.key(tokens)), dim=3)
        weight = inside[:, None, :, None]
        value = attention.split(attention.value(tokens)) * weight
        share = _shares(query, key)
        mean_key = (key * weight).sum(2) / (weight.sum(2) + 1e-9)
        score = (query @ mean_key.unsqueeze(3) / _TEMPERATURE).mean(1)
        matched = query_tokens + self.dropout(attention.join(share @ value))
        return to_map(self.add_feed_forward(matched, grid), grid), score.view(len(x), *grid)


class MatchingTransformer(nn.Module):
    """Self-attention levels, matching levels, and their merge.

    Args:
        channels: channels of every map, a multiple of 8; 64 in the published network.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            EncoderStage(
                channels, heads, kernel=3 if level else 1, stride=2 if level else 1, reduction=reduction
            )
            for level, (heads, reduction) in enumerate(zip(_HEADS, _REDUCTIONS, strict=True))
        )
        self.match = nn.ModuleList(MatchLayer(channels) for _ in range(LEVELS))
        self.join = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels + _MAPS, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
            for _ in range(LEVELS)
        )
        self.parse = nn.ModuleList(
            nn.Sequential(*_head(channels, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
            for _ in range(LEVELS)
        )
        self.classify = nn.Sequential(*_head(channels, 2))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Encode [B,C,h,w] at all levels; return the maps from fine to coarse."""
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps

    def forward(
        self, x: Tensor, similarity: Tensor, tokens: Sequence[Tensor], inside: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Match and segment.

        Args:
            x: merged query feature [B,C,h,w].
            similarity: maps [B,2,h,w] that are an input of every level.
            tokens: tokens of the support object per level, [B,S,C].
            inside: per level, 1 for a token and 0 for padding, [B,S].

        Returns:
            Logits [B,2,h,w], and per level, fine to coarse, the scores [B,h',w'] that are distilled.
        """
        matched, scores = [], []
        for level, encoded in enumerate(self.encode(x)):
            match, score = self.match[level](encoded, tokens[level], inside[level])
            matched.append(self.join[level](torch.cat([match, resize_like(similarity, match)], 1)))
            scores.append(score)
        merged = self.parse[-1](matched[-1])
        for level in reversed(range(LEVELS - 1)):
            merged = resize(merged, tuple(matched[level].shape[-2:]), align_corners=False)
            merged = merged + self.parse[level](matched[level] + merged)
        return self.classify(merged), scores


def published_matching_names(child: str, theirs: str) -> Mapping[str, str]:
    """Return prefix under the child ``child`` -> published prefix under ``theirs``."""
    names = {f"{child}.parse": f"{theirs}.parse_layers", f"{child}.classify": f"{theirs}.cls"}
    for level in range(LEVELS):
        own, other = f"{child}.levels.{level}", f"{theirs}.down_sample_layers.{level}"
        names |= {f"{own}.embed": f"{other}.0", f"{own}.norm": f"{other}.3"}
        for layer in range(2):
            names |= layer_names(f"{own}.layers.{layer}", f"{other}.{layer + 1}")
        other = f"{theirs}.match_layers.{level}"
        names |= layer_names(f"{child}.match.{level}", f"{other}.0")
        names |= {f"{child}.join.{level}.0": f"{other}.1.conv", f"{child}.join.{level}.1": f"{other}.1.bn"}
    return names


def _head(channels: int, outputs: int) -> tuple[nn.Module, ...]:
    """Return three convolutions with four times the channels inside; as published, without activations."""
    return (
        nn.Conv2d(channels, 4 * channels, 1),
        nn.BatchNorm2d(4 * channels),
        nn.Conv2d(4 * channels, 4 * channels, 3, padding=1),
        nn.BatchNorm2d(4 * channels),
        nn.Conv2d(4 * channels, outputs, 1),
    )
