"""A plain implementation of how published BAM tests an episode, for the benchmark to compare with.

Every image goes through the backbone in every episode, and the prior compares every support position with
every query position. The weights are those of one of our models, so its logits must come out the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fewseg.model.contract import Backbone, Episode
from fewseg.model.fewshot import FewShotModel
from fewseg.model.meta.bam import BAM


def plain_forward(model: FewShotModel, episode: Episode) -> Tensor:
    """Segment one episode [1,...] without any optimisation -> final logits [1,2,H,W]."""
    meta, backbone = model.meta, model.backbone
    assert isinstance(meta, BAM) and model.base_head is not None and model.ensemble is not None
    q2, q3, q4 = _features(backbone, episode.query)
    feature = meta.query_reduction(torch.cat([q3, _enlarge(q2, q3)], 1))
    prototypes, priors, distances = [], [], []
    for shot in range(episode.shots):
        mask = (episode.support_mask[:, 0, shot] == 1).float().unsqueeze(1)
        s2, s3, s4 = _features(backbone, episode.support[:, 0, shot], mask)
        small = _enlarge(mask, s3)
        support = meta.support_reduction(torch.cat([s3, _enlarge(s2, s3)], 1))
        prototypes.append((support * small).sum((2, 3)) / (small.sum((2, 3)) + 5e-4))
        priors.append(_dense_prior(q4, s4 * _enlarge(mask, s4)))
        gram = _gram(_enlarge(q2, q3)) - _gram(_enlarge(s2, s3))
        distances.append(gram.flatten(1).norm(dim=1) / gram.shape[1])
    distance = torch.stack(distances, 1)
    weights = torch.ones_like(distance)
    if episode.shots > 1:
        assert meta.shot_weights.network is not None  # learned ones
        ascending, order = distance.sort(1)
        weights = meta.shot_weights.network(ascending[:, :, None, None]).flatten(1)
        weights = weights.gather(1, order.argsort(1)).softmax(1)
    zero = torch.zeros(())
    prototype = sum((weights[:, k, None] * p for k, p in enumerate(prototypes)), zero)
    prior = sum((weights[:, k, None, None, None] * p for k, p in enumerate(priors)), zero)
    guide = prototype[:, :, None, None].expand_as(feature)
    logits = meta.decoder(meta.merge(torch.cat([feature, guide, prior], 1)))
    base = model.base_head(q4)
    final = model.ensemble(logits, base, (weights * distance).sum(1))
    for output in (logits, base):
        interpolate(output, episode.size, mode="bilinear", align_corners=True)
    return interpolate(final, episode.size, mode="bilinear", align_corners=True)


def _features(backbone: Backbone, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    features = backbone(image, ("middle", "high") if mask is None else ("middle",))
    fine, deep = features["middle.0"], features["middle.1"]
    high = features["high"] if mask is None else backbone.run_stage("layer4", deep * _enlarge(mask, deep))
    return fine, deep, high


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, tuple(like.shape[-2:]), mode="bilinear", align_corners=True)


def _gram(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    norm = flat.norm(dim=2, keepdim=True)
    return torch.bmm(flat, flat.transpose(1, 2)) / (torch.bmm(norm, norm.transpose(1, 2)) + 1e-7)


def _dense_prior(query: Tensor, support: Tensor) -> Tensor:
    q, s = query.flatten(2), support.flatten(2).transpose(1, 2)
    similarity = torch.bmm(s, q) / (
        torch.bmm(s.norm(dim=2, keepdim=True), q.norm(dim=1, keepdim=True)) + 1e-7
    )
    best = similarity.amax(1)
    low, high = best.amin(1, keepdim=True), best.amax(1, keepdim=True)
    return ((best - low) / (high - low + 1e-7)).view(len(query), 1, *query.shape[-2:])
