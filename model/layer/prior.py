"""PFENet's training-free prior: the largest similarity of a query position to the support object.

Tian et al., "Prior Guided Feature Enrichment Network for Few-Shot Segmentation", TPAMI 2020, section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.model.layer.pooling import gather_positions
from fewseg.model.layer.precision import in_float32
from fewseg.model.layer.products import products
from fewseg.model.layer.resize import resize_like
from fewseg.model.records import Map

PRIOR_MAP = Map("prior", "prior", limits=(0, 1))
"""How figures show the prior."""

_EPSILON = 1e-7


@in_float32
def unit(features: Tensor) -> Tensor:
    """Scale vectors along axis 1 to length one; zero vectors stay zero."""
    return features / features.norm(dim=1, keepdim=True).clamp_min(_EPSILON)


def object_features(features: Tensor, mask: Tensor) -> Tensor:
    """Gather the feature vectors under a mask -> [B,C,P]; P is the largest object of the batch.

    The published code keeps positions outside the mask as zero vectors, whose cosine is 0. Here the zero
    vectors that pad images with fewer positions, and the one zero vector of an empty mask, have that effect.

    Args:
        features: [B,C,h,w].
        mask: foreground [B,1,H,W] at any resolution; it is resized, and positions above 0 are gathered.
    """
    return gather_positions(features, resize_like(mask, features) > 0)


@in_float32
def largest_cosine(query: Tensor, support_object: Tensor) -> Tensor:
    """Return the largest cosine of every query position with K support objects.

    Args:
        query: query features [B,C,h,w].
        support_object: the results of ``object_features``, [B,K,C,P].

    Returns:
        [B,K,h,w].
    """
    lengths = query.norm(dim=1, keepdim=True).clamp_min(_EPSILON)
    # A query's length is the same for all supports, so it is divided by after the largest product is found.
    largest = [products(query, unit(shot)).amax(1) for shot in support_object.unbind(1)]
    return torch.stack(largest, 1) / lengths


def scale_to_unit_range(similarity: Tensor) -> Tensor:
    """Scale similarities [B,P] linearly to [0,1] per image."""
    low, high = similarity.aminmax(dim=1, keepdim=True)
    return (similarity - low) / (high - low + _EPSILON)


def shot_priors(query: Tensor, support_object: Tensor) -> Tensor:
    """Return the priors of K support objects: the largest cosine of every position, scaled to [0,1].

    Args:
        query: query features [B,C,h,w].
        support_object: the results of ``object_features``, [B,K,C,P].

    Returns:
        [B,K,1,h,w].
    """
    similarity = largest_cosine(query, support_object)
    scaled = scale_to_unit_range(similarity.flatten(0, 1).flatten(1))
    return scaled.view_as(similarity).unsqueeze(2)
