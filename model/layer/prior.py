"""PFENet's training-free prior: where the query looks like some pixel of the support object.

Tian et al., "Prior Guided Feature Enrichment Network for Few-Shot Segmentation", TPAMI 2020, section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.model.layer.pooling import gather_positions
from fewseg.model.layer.resize import resize_like

_EPSILON = 1e-7


def unit(features: Tensor) -> Tensor:
    """Scale vectors along axis 1 to length one; zero vectors stay zero."""
    return features / features.norm(dim=1, keepdim=True).clamp_min(_EPSILON)


def object_features(features: Tensor, mask: Tensor) -> Tensor:
    """Gather the feature vectors under a mask -> [B,C,P], P the most positions that an image has.

    Positions outside the mask would be zero vectors, whose cosine is 0: the zeros that pad images with fewer
    positions stand for them, and so does the one zero column of an empty mask.

    Args:
        features: [B,C,h,w].
        mask: foreground [B,1,H,W] at any resolution; a position counts where its resized value is above 0.
    """
    return gather_positions(features, resize_like(mask, features) > 0)


def prior(query: Tensor, support_object: Tensor) -> Tensor:
    """Return the largest cosine of every query position with a support object, stretched to [0,1] per image.

    Args:
        query: query features [B,C,h,w].
        support_object: what ``object_features`` gives, [B,C,P].

    Returns:
        [B,1,h,w].
    """
    similarity = largest_cosine(query, support_object)
    return stretch(similarity.flatten(1)).view_as(similarity).unsqueeze(1)


def largest_cosine(query: Tensor, support_object: Tensor) -> Tensor:
    """Return the largest cosine [B,h,w] of every query position [B,C,h,w] with the vectors [B,C,P]."""
    flat = query.flatten(2)
    # Dividing the products, not the vectors, rounds as the published code does: stretching magnifies it.
    product = torch.bmm(support_object.transpose(1, 2), flat)
    lengths = torch.bmm(support_object.norm(dim=1).unsqueeze(2), flat.norm(dim=1).unsqueeze(1))
    return (product / (lengths + _EPSILON)).amax(1).unflatten(1, query.shape[2:])


def stretch(similarity: Tensor) -> Tensor:
    """Stretch similarities [B,P] to [0,1] per image."""
    low, high = similarity.aminmax(dim=1, keepdim=True)
    return (similarity - low) / (high - low + _EPSILON)


def shot_priors(query: Tensor, support_object: Tensor) -> Tensor:
    """Return the priors [B,K,1,h,w] of K support objects [B,K,C,P]."""
    return torch.stack([prior(query, shot) for shot in support_object.unbind(1)], 1)
