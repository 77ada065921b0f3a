"""Training on images with mined labels: regions of latent classes, and their prototypes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from fewseg.model import waiting
from fewseg.model.episode import IGNORE

_EPSILON = 1e-5


@dataclass(frozen=True)
class Regions:
    """The latent classes of T images.

    Attributes:
        ids: the background and the labels that occur in any image, [J]; on a GPU, where the host does not
            know them, all labels that may occur.
        member: whether a position belongs to a label, bool [T,J,h,w].
        present: whether an image shows enough positions of a label, bool [T,J].
        prototype: mean feature of each region, [T,J,C].
    """

    ids: Tensor
    member: Tensor
    present: Tensor
    prototype: Tensor

    def objects(self) -> tuple[Tensor, Tensor]:
        """Return the prototypes of all regions [T*J,C], and whether they are large enough objects, [T*J]."""
        return self.prototype.flatten(0, 1), (self.present & (self.ids > 0)).flatten()


def find_regions(feature: Tensor, label: Tensor, min_area: int) -> Regions:
    """Pool the regions of mined labels.

    Args:
        feature: [T,C,h,w].
        label: 0 background, j the j-th latent class, 255 void; int64 [T,h,w].
        min_area: positions that a region must exceed to be present.
    """
    everything = torch.arange(IGNORE, device=label.device)
    ids = everything if waiting.would_wait(label) else label.masked_fill(label == IGNORE, 0).unique()
    member = label.unsqueeze(1) == ids.view(1, -1, 1, 1)
    area = member.sum((2, 3))
    total = torch.einsum("tchw,tjhw->tjc", feature, member.to(feature))
    return Regions(ids, member, area > min_area, total / (area.unsqueeze(2) + _EPSILON))


def mining_loss(feature: Tensor, regions: Regions, scale: float, *, source: str) -> Tensor:
    """Classify every position of the regions among the prototypes of all latent classes of the batch.

    Args:
        feature: [T,C,h,w].
        regions: regions of these images.
        scale: factor that turns cosines into logits.
        source: ``other``: an image is compared with the mean prototype of the other images that show a class,
            or with its own if there is no other; ``self``: with its own if it shows the class.
    """
    member, present, own = regions.member, regions.present, regions.prototype
    shown = present.unsqueeze(2).to(feature)
    others = shown.sum(0, keepdim=True) - shown
    mean = ((own * shown).sum(0, keepdim=True) - own * shown) / others.clamp_min(1)
    takes_own = others == 0 if source == "other" else shown > 0
    prototype = torch.where(takes_own, own, mean)
    cosine = torch.einsum("tchw,tjc->tjhw", normalize(feature, dim=1), normalize(prototype, dim=2))
    in_batch = present.any(0)[:, None, None]
    logits = (scale * cosine).masked_fill(~in_batch, torch.finfo(cosine.dtype).min)
    counts = member & present[:, :, None, None]
    target = counts.int().argmax(1).masked_fill(~counts.any(1), IGNORE)
    loss = cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
    return loss / (target != IGNORE).sum().clamp_min(1)


def at_positions(label: Tensor, size: tuple[int, ...]) -> Tensor:
    """Read labels [B,H,W] at the positions of a grid with the same corners, [B,h,w]."""
    rows, columns = (
        torch.linspace(0, large - 1, small, device=label.device).round().long()
        for small, large in zip(size, label.shape[-2:], strict=True)
    )
    return label[:, rows][:, :, columns]
