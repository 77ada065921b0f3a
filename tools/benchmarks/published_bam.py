"""A plain implementation of how published BAM tests and trains, for the benchmarks to compare with.

Every image goes through the backbone whenever it is used, the prior compares every support position with
every query position, and the base learner convolves the concatenated pyramid. The weights are those of one of
our models, so the logits and the losses must come out the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from fewseg.model.base.pspnet import PyramidHead
from fewseg.model.contract import IGNORE, Backbone, BaseHead, Episode
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.decoder import ASPPDecoder
from fewseg.model.meta.bam import BAM


class Outputs(NamedTuple):
    """What the published network returns: logits at the size of the image.

    Attributes:
        final: of the ensemble, [B,2,H,W].
        meta: of the meta-learner, [B,2,H,W].
        base: of the base learner, [B,1+classes,H,W].
    """

    final: Tensor
    meta: Tensor
    base: Tensor


def published_outputs(model: FewShotModel, episode: Episode) -> Outputs:
    """Segment episodes of one way without any optimisation."""
    meta, backbone, shots = model.meta, model.backbone, range(episode.shots)
    assert isinstance(meta, BAM) and model.base_head is not None and model.ensemble is not None
    q2, q3, q4 = _features(backbone, episode.query)
    feature = meta.query_reduction(torch.cat([q3, _enlarge(q2, q3)], 1))
    gram = _gram(_enlarge(q2, q3))
    found = [_compare(model, episode, shot, q4, gram) for shot in shots]
    distance = torch.stack([distance for _, _, distance in found], 1)
    weights = _weights(meta, distance)
    zero = torch.zeros((), device=feature.device)
    prototype = sum((weights[:, k, None] * found[k][0] for k in shots), zero)
    prior = sum((weights[:, k, None, None, None] * found[k][1] for k in shots), zero)
    guide = prototype[:, :, None, None].expand_as(feature)
    logits = _decoded(meta.decoder, meta.merge(torch.cat([feature, guide, prior], 1)))
    with torch.no_grad():
        base = _base_logits(model.base_head, q4)
    excluded = episode.class_index.flatten() if model.training and episode.class_index is not None else None
    final = model.ensemble(logits, base, (weights * distance).sum(1), excluded)
    sizes = (interpolate(x, episode.size, mode="bilinear", align_corners=True) for x in (final, logits, base))
    return Outputs(*sizes)


def published_losses(outputs: Outputs, episode: Episode) -> list[Tensor]:
    """Return the losses that the published loop sums: of the ensemble, the meta-learner, the base learner."""
    assert episode.query_mask is not None and episode.base_label is not None
    labels = (episode.query_mask, episode.query_mask, episode.base_label)
    pairs = zip(outputs, labels, strict=True)
    return [cross_entropy(logits, label, ignore_index=IGNORE) for logits, label in pairs]


def published_counts(logits: Tensor, label: Tensor) -> list[float]:
    """Count pixels as published loops do after every episode and step: intersections, then unions.

    Args:
        logits: [B,2,h,w].
        label: the true classes [B,H,W] on the same device, to whose size the logits are brought.
    """
    sized = interpolate(logits, tuple(label.shape[-2:]), mode="bilinear", align_corners=True)
    predicted = sized.argmax(1)
    predicted[label == IGNORE] = IGNORE
    shared = predicted[predicted == label]
    areas = [torch.histc(x.float(), bins=2, min=0, max=1) for x in (shared, predicted, label)]
    intersection, union = areas[0].cpu(), (areas[1] + areas[2] - areas[0]).cpu()
    return [*intersection.tolist(), *union.tolist()]


def _compare(
    model: FewShotModel, episode: Episode, shot: int, q4: Tensor, gram: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return prototype [B,C], prior [B,1,h,w] and scene distance [B] of one support of every episode."""
    assert isinstance(model.meta, BAM)
    mask = (episode.support_mask[:, 0, shot] == 1).float().unsqueeze(1)
    s2, s3, s4 = _features(model.backbone, episode.support[:, 0, shot], mask)
    small = _enlarge(mask, s3)
    support = model.meta.support_reduction(torch.cat([s3, _enlarge(s2, s3)], 1))
    prototype = (support * small).sum((2, 3)) / (small.sum((2, 3)) + 5e-4)
    difference = gram - _gram(_enlarge(s2, s3))
    distance = difference.flatten(1).norm(dim=1) / gram.shape[1]
    return prototype, _dense_prior(q4, s4 * _enlarge(mask, s4)), distance


def _weights(meta: BAM, distance: Tensor) -> Tensor:
    """Return the weights [B,K] of the supports."""
    if distance.shape[1] == 1:
        return torch.ones_like(distance)
    assert meta.shot_weights.network is not None  # learned ones
    ascending, order = distance.sort(1)
    weights = meta.shot_weights.network(ascending[:, :, None, None]).flatten(1)
    return weights.gather(1, order.argsort(1)).softmax(1)


def _base_logits(head: BaseHead, x: Tensor) -> Tensor:
    """Classify the concatenated pyramid, [B,C,h,w] -> [B,1+classes,h,w]."""
    assert isinstance(head, PyramidHead)
    return head.cls(head.ppm(x))


def _decoded(decoder: ASPPDecoder, merged: Tensor) -> Tensor:
    """Decode with the branches of the ASPP concatenated, [B,C,h,w] -> [B,2,h,w]."""
    mean_branch, *branches = decoder.aspp.children()
    mean = mean_branch(merged.mean((2, 3), keepdim=True)).expand(-1, -1, *merged.shape[-2:])
    joined = torch.cat([mean, *(branch(merged) for branch in branches)], 1)
    return decoder.classify(decoder.refine(decoder.compress(joined)))


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
