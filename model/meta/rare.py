"""RARE: C. Lang et al., "Retain and Recover: Delving into Information Loss for Few-Shot Segmentation".

IEEE TIP 32, 2023. Three changes recover information that prototype methods lose: a prototype is spread over
the query by row and column profiles instead of being tiled; the foreground that is lost when a mask is
downsampled has its own branch and loss; and every query position uses the most similar of K supports instead
of their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fewseg.model import waiting
from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.block import reduction
from fewseg.model.layer.decoder import ASPPDecoder, published_decoder_names
from fewseg.model.layer.loss import binary_tasks, pixel_cross_entropy
from fewseg.model.layer.pooling import foreground, masked_average_pool
from fewseg.model.layer.prior_guided import PriorGuided
from fewseg.model.layer.resize import resize_like
from fewseg.model.layer.retain_and_recover import (
    ACTIVATION_MAPS,
    RetainAndRecover,
    RetainAndRecoverOptions,
    profile_transforms,
)
from fewseg.model.options import Channels, Weight
from fewseg.model.records import Adaptation, Published


@dataclass(frozen=True)
class RAREOptions(RetainAndRecoverOptions):
    """Options of RARE.

    Attributes:
        unidirectional_pooling, error_prone_region, adaptive_integration: see ``RetainAndRecoverOptions``.
        profile_softmax, error_prone_weight: see ``RetainAndRecoverOptions``.
        first_shot_uses_mean: whether the first of several supports uses the mean prototype, as in the
            published code, or its own like the others.
        contrast_weight: weight of the contrast loss; 0 leaves it out. It is not published; BAM's 1 is
            assumed.
        channels: width of the decoder; 256 in the published network.
    """

    unidirectional_pooling: bool = True
    error_prone_region: bool = True
    adaptive_integration: bool = True
    first_shot_uses_mean: bool = False
    contrast_weight: Weight = 1.0
    channels: Channels = 256


class RARE(PriorGuided):
    """Unidirectional pooling, error-prone region and adaptive integration before an ASPP decoder.

    Without the three strategies and the contrast loss it is its baseline, BAM's meta-learner with the mean of
    the shots (``shot_weights: uniform``).
    """

    Options = RAREOptions
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
        },
        maps=(*PriorGuided.published.maps, *ACTIVATION_MAPS),
    )

    def __init__(self, build: BuildArguments, options: RAREOptions) -> None:
        width = options.channels
        super().__init__(build.backbone, width)
        self.options = options
        inputs = 2 * width + 1 + options.activation_maps
        self.merge = reduction(inputs, width)
        self.error_prone_merge = reduction(inputs, width) if options.error_prone_region else None
        self.decoder = ASPPDecoder(width)
        self.rows, self.columns = profile_transforms(width, options)
        self.strategies = RetainAndRecover(options, self.rows, self.columns)
        self.adaptation = Adaptation(blended=("prior", *self.strategies.blended))

    def encode_object(self, feature: Tensor, mask: Tensor) -> Encoding:
        return self.strategies.encode(feature, mask)

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        prior = self.priors(query, support).mean(1)
        first_shot_uses_mean = self.options.first_shot_uses_mean
        guidance = self.strategies.guide(query["feature"], support, first_shot_uses_mean=first_shot_uses_mean)
        return {"prior": prior, **guidance}

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature = query["feature"]
        prior = resize_like(guidance["prior"], feature)
        merges = (self.merge, self.error_prone_merge)
        merged = self.strategies.merge(merges, feature, guidance, prior)
        return Prediction(self.decoder(merged), {**guidance, "merged": merged})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        losses = {
            "main": pixel_cross_entropy(prediction.logits, episode.ground_truth),
            **self.strategies.losses(prediction, episode),
        }
        if self.options.contrast_weight:
            merged = prediction.parts["merged"].flatten(0, -4)  # every way is a task of its own
            label = binary_tasks(prediction.logits, episode.ground_truth)[1]
            contrast = self._contrast_loss(merged, label, generator)
            losses["contrast"] = self.options.contrast_weight * contrast
        return losses

    def pick_pixel(self, candidates: int, generator: torch.Generator | None) -> int:
        """Draw the index of the position that represents its region in the contrast loss."""
        device = "cpu" if generator is None else generator.device
        return int(torch.randint(candidates, (1,), generator=generator, device=device))

    def _contrast_loss(self, merged: Tensor, label: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the loss that pulls an object position to the object's mean and pushes background away."""
        inside = resize_like(foreground(label), merged)
        if waiting.would_wait(merged):
            return contrast_of_all(merged, inside, generator)
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


def contrast_of_all(merged: Tensor, inside: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return the contrast loss of all images at once, without the host knowing the size of any region.

    The position that represents a region is drawn as a share of its size, so it is as random as that of
    ``RARE.pick_pixel``, but another one for the same generator.

    Args:
        merged: merged query features [B,C,h,w].
        inside: soft foreground on the same grid, [B,1,h,w].
        generator: generator of random numbers, on any device.
    """
    is_object = inside.flatten(1) > 0.5
    regions = torch.stack([is_object, ~is_object], 1)
    device = merged.device if generator is None else generator.device
    share = torch.rand(len(merged), 2, dtype=torch.float64, generator=generator, device=device)
    drawn = at_share(regions, waiting.sent(share, merged.device))
    anchor, other = torch.einsum("bcn,brn->rbc", merged.flatten(2), drawn.to(merged))
    centre = masked_average_pool(merged, inside)
    loss = 1 - cosine_similarity(anchor, centre) + cosine_similarity(anchor, other)
    loss = loss + cosine_similarity(centre, other)
    return (loss * regions.any(2).all(1)).sum() / (3 * len(merged))


def at_share(regions: Tensor, share: Tensor) -> Tensor:
    """Select of each region, bool [B,R,n], the position at a share [B,R] of its size, from 0 to below 1."""
    rank = (share.unsqueeze(2) * regions.sum(2, keepdim=True)).long()
    return regions & (regions.cumsum(2) == rank + 1)
