"""RARE: C. Lang et al., "Retain and Recover: Delving into Information Loss for Few-Shot Segmentation".

IEEE TIP 32, 2023. Three changes recover information that prototype methods lose: a prototype is spread over
the query by row and column profiles instead of being tiled; the foreground that is lost when a mask is
downsampled has its own branch and loss; and every query position uses the most similar of K supports instead
of their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, interpolate

from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import IGNORE, Episode, Prediction
from fewseg.model.layer.block import reduction
from fewseg.model.layer.decoder import ASPPDecoder, published_decoder_names
from fewseg.model.layer.features import middle_features
from fewseg.model.layer.loss import binary_tasks, pixel_cross_entropy
from fewseg.model.layer.pooling import foreground, masked_average_pool, tile
from fewseg.model.layer.prior import object_features, shot_priors
from fewseg.model.layer.prior_guided import PriorGuided
from fewseg.model.layer.resize import resize_like
from fewseg.model.options import Channels, Weight
from fewseg.model.records import Adaptation, Published

_EPSILON = 1e-7


@dataclass(frozen=True)
class RAREOptions:
    """Options of RARE.

    Attributes:
        first_shot_uses_mean: whether the first of several supports uses the mean prototype, as in the
            published code, or its own like the others.
        error_prone_weight: weight of the loss on error-prone pixels. It is not published; BAM's 1 is assumed.
        contrast_weight: weight of the contrast loss, likewise.
        channels: width of the decoder; 256 in the published network.
    """

    first_shot_uses_mean: bool = True
    error_prone_weight: Weight = 1.0
    contrast_weight: Weight = 1.0
    channels: Channels = 256


class ProfileTransform(nn.Module):
    """Two convolutions over the outer product of a query profile and a support profile."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pointwise = reduction(channels, channels)
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.ReLU(inplace=True)
        )

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the transformed outer product [B,C,n,n] of two profiles [B,C,n], after a softmax over it."""
        pairs = rows.unsqueeze(3) * columns.unsqueeze(2)
        weights = pairs.flatten(2).softmax(2).view_as(pairs)
        activated = self.pointwise(weights)
        return activated + self.spatial(activated)


class RARE(PriorGuided):
    """Unidirectional pooling, error-prone region and adaptive integration before an ASPP decoder."""

    Options = RAREOptions
    adaptation = Adaptation(
        blended=(
            "fused",
            "error_prone_fused",
            "prior",
            "activation",
            "error_prone_activation",
            "error_prone_share",
        )
    )
    published = Published(
        names={
            **PriorGuided.published.names,
            "merge": "init_merge",
            "error_prone_merge": "init_merge_1",
            "rows.pointwise": "res_h",
            "rows.spatial": "res_h_1",
            "columns.pointwise": "res_w",
            "columns.spatial": "res_w_1",
            **published_decoder_names("decoder"),
        }
    )

    def __init__(self, build: BuildArguments, options: RAREOptions) -> None:
        width = options.channels
        super().__init__(build.backbone, width)
        self.options = options
        self.merge = reduction(2 * width + 3, width)
        self.error_prone_merge = reduction(2 * width + 3, width)
        self.decoder = ASPPDecoder(width)
        self.rows = ProfileTransform(width)
        self.columns = ProfileTransform(width)

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        mask = foreground(mask)
        feature = self.support_reduction(middle_features(features))
        inside = resize_like(mask, feature)
        lost = resize_like((mask - resampled(mask, feature)).clamp_min(0), feature)
        encoding = {
            "prior_object": object_features(features["high"], mask),
            "error_prone_share": lost.mean((1, 2, 3)) / (inside.mean((1, 2, 3)) + _EPSILON),
        }
        for region, weight in (("", inside), ("error_prone_", lost)):
            encoding[f"{region}prototype"] = masked_average_pool(feature, weight)
            encoding[f"{region}rows"] = (feature * weight).mean(3)
            encoding[f"{region}columns"] = (feature * weight).mean(2)
        return encoding

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        feature = query["feature"]
        guidance = {
            "prior": shot_priors(query["prior_query"], support["prior_object"]).mean(1),
            "error_prone_share": support["error_prone_share"].mean(1),
        }
        for region in ("", "error_prone_"):
            prototypes = support[f"{region}prototype"]
            mean = prototypes.mean(1)
            if self.options.first_shot_uses_mean:
                prototypes = torch.cat([mean.unsqueeze(1), prototypes[:, 1:]], 1)
            shots = [
                self._expand_prototype(feature, *parts)
                for parts in zip(
                    prototypes.unbind(1),
                    support[f"{region}rows"].unbind(1),
                    support[f"{region}columns"].unbind(1),
                    strict=True,
                )
            ]
            guidance |= {
                f"{region}prototype": mean,
                f"{region}fused": most_similar(torch.stack(shots, 1), feature),
                f"{region}activation": cosine_similarity(feature, tile(mean, feature)).unsqueeze(1),
            }
        return guidance

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature = query["feature"]
        maps = [
            resize_like(guidance["prior"], feature),
            guidance["activation"],
            guidance["error_prone_activation"],
        ]
        merged = self.merge(torch.cat([feature, guidance["fused"], *maps], 1))
        error_prone = self.error_prone_merge(torch.cat([feature, guidance["error_prone_fused"], *maps], 1))
        merged = merged + guidance["error_prone_share"][:, None, None, None] * error_prone
        return Prediction(self.decoder(merged), {**guidance, "merged": merged})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        merged = prediction.parts["merged"].flatten(0, -4)  # every way is a task of its own
        logits, label = binary_tasks(prediction.logits, episode.ground_truth)
        error_prone = error_prone_loss(logits, label, merged)
        return {
            "main": pixel_cross_entropy(prediction.logits, episode.ground_truth),
            "error_prone": self.options.error_prone_weight * error_prone,
            "contrast": self.options.contrast_weight * self._contrast_loss(merged, label, generator),
        }

    def pick_pixel(self, candidates: int, generator: torch.Generator | None) -> int:
        """Draw the index of the position that represents its region in the contrast loss."""
        device = "cpu" if generator is None else generator.device
        return int(torch.randint(candidates, (1,), generator=generator, device=device))

    def _expand_prototype(self, feature: Tensor, prototype: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Expand a prototype [B,C] over the query grid by unidirectional pooling -> [B,C,h,w].

        The paper multiplies the tiled prototype by a row matrix from the left and a column matrix from the
        right. As the tiled prototype is constant, the sums of the matrices over the support axis suffice.
        """
        down = self.rows(feature.mean(3), rows).sum(3)
        across = self.columns(columns, feature.mean(2)).sum(2)
        return (prototype.unsqueeze(2) * down).unsqueeze(3) * across.unsqueeze(2)

    def _contrast_loss(self, merged: Tensor, label: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the loss that pulls an object position to the object's mean and pushes background away."""
        inside = resize_like(foreground(label), merged)
        total = merged.new_zeros(())
        for vectors, centre, is_object in zip(
            merged.flatten(2), masked_average_pool(merged, inside), inside.flatten(1) > 0.5, strict=True
        ):
            regions = [torch.where(region)[0] for region in (is_object, ~is_object)]
            if any(len(region) == 0 for region in regions):
                continue
            anchor, other = (vectors[:, r[self.pick_pixel(len(r), generator)]] for r in regions)
            pulled = 1 - cosine_similarity(anchor, centre, 0)
            pushed = cosine_similarity(anchor, other, 0) + cosine_similarity(centre, other, 0)
            total = total + pulled + pushed
        return total / (3 * len(merged))


def resampled(mask: Tensor, grid: Tensor) -> Tensor:
    """Downsample a mask [B,1,H,W] to the grid of ``grid`` by nearest neighbours, and upsample it again."""
    small = interpolate(mask, grid.shape[-2:], mode="nearest")
    return interpolate(small, mask.shape[-2:], mode="nearest")


def most_similar(maps: Tensor, feature: Tensor) -> Tensor:
    """Select at every position the vector of K maps [B,K,C,h,w] most similar to ``feature`` [B,C,h,w]."""
    best = cosine_similarity(maps, feature.unsqueeze(1), 2).argmax(1)
    index = best[:, None, None].expand(-1, 1, *maps.shape[2:])
    return maps.gather(1, index).squeeze(1)


def error_prone_loss(logits: Tensor, label: Tensor, grid: Tensor) -> Tensor:
    """Return the cross-entropy on the pixels that change when the query mask is resampled, times their share.

    It is zero if no pixel changes. Void pixels next to the object count as background where the resampled
    mask covers them, as published.

    Args:
        logits: [B,2,H,W].
        label: 0, 1 or 255, [B,H,W].
        grid: a map [B,C,h,w] at the resolution of the decoder, to which the mask is downsampled.
    """
    mask = foreground(label)
    change = mask - resampled(mask, grid)
    misplaced = torch.full_like(label, IGNORE)
    misplaced[change[:, 0] > 0] = 1
    misplaced[change[:, 0] < 0] = 0
    if not (misplaced != IGNORE).any():
        return logits.new_zeros(())
    lost = change.clamp_min(0).mean((1, 2, 3)) / (mask.mean((1, 2, 3)) + _EPSILON)
    return lost.mean() * cross_entropy(logits, misplaced, ignore_index=IGNORE)
