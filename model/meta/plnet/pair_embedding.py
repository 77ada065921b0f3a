"""Embedding of (image, mask) pairs by a separate backbone, and the distance of embeddings."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fewseg.model.backbone.contract import Backbone
from fewseg.model.layer.precision import in_float32
from fewseg.model.layer.resize import resize_like

MaskMode = Literal["late", "early", "channel"]
Distance = Literal["euclidean", "cosine"]

_EPSILON = 1e-5
_COSINE_SCALE = 20.0


class PairEmbedding(nn.Module):
    """Features of a backbone, pooled under a mask: (image, mask) -> vector.

    Args:
        backbone: the backbone, of which a copy is used.
        channels: length of the vectors.
        mask_mode: where the mask enters. ``late``: it weights the features in the mean, so an image passes
            through the backbone only once for all masks. ``early``: it multiplies the image. ``channel``: it
            is a fourth channel of the image, whose weights are initialised to zero. ``early`` and ``channel``
            take the mean over all positions.
        signed: whether the features have no last activation.
    """

    def __init__(
        self, backbone: Backbone, channels: int, mask_mode: MaskMode = "late", *, signed: bool = True
    ) -> None:
        super().__init__()
        self.mask_mode, self.signed = mask_mode, signed
        self.backbone = copy.deepcopy(backbone)
        self.feature, self.project = deep_feature(backbone, channels)
        if mask_mode == "channel":
            self._add_mask_channel()

    def image_features(self, image: Tensor) -> Tensor:
        """Return the part of the computation that needs no mask: ``late`` features, or the images."""
        return self._features(image) if self.mask_mode == "late" else image

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Embed the result of ``image_features`` under P soft masks [B,P,h,w] -> [B,P,channels]."""
        masks = resize_like(masks, features)
        if self.mask_mode == "late":
            total = torch.einsum("bchw,bphw->bpc", features, masks)
            return total / (masks.sum((2, 3)) + _EPSILON).unsqueeze(2)
        images, masks = features.unsqueeze(1).expand(-1, masks.shape[1], -1, -1, -1), masks.unsqueeze(2)
        pairs = images * masks if self.mask_mode == "early" else torch.cat([images, masks], 2)
        return self._features(pairs.flatten(0, 1)).mean((2, 3)).unflatten(0, pairs.shape[:2])

    def initialise(self, backbone: Backbone) -> None:
        """Copy the weights of ``backbone`` to this module's own copy of it."""
        self.backbone.load_state_dict(self.backbone.with_own_channels(backbone.state_dict()))

    def _features(self, image: Tensor) -> Tensor:
        features = self.project(self.backbone(image, (self.feature,))[self.feature])
        return features if self.signed else features.relu()

    def _add_mask_channel(self) -> None:
        _, first = self.backbone.first_convolution()
        widened = torch.cat([first.weight, torch.zeros_like(first.weight[:, :1])], 1)
        first.weight, first.in_channels = nn.Parameter(widened.detach()), first.in_channels + 1


def deep_feature(backbone: Backbone, channels: int) -> tuple[str, nn.Module]:
    """Return the role or name of a deep feature, and a layer that gives it ``channels`` channels.

    It is the signed feature, unchanged if it has this number of channels. For a backbone without its last
    stage, it is the last middle feature, which has an activation and therefore needs a 1x1 convolution.
    """
    spec = backbone.spec
    whole = "high" in spec.roles
    name = "signed" if whole else spec.names(("middle",))[-1]
    own = spec.channels(name)
    return name, nn.Identity() if whole and own == channels else nn.Conv2d(own, channels, 1)


@in_float32
def closeness(vectors: Tensor, prototypes: Tensor, distance: Distance) -> Tensor:
    """Return the negative distance of vectors and prototypes along their last axis; other axes broadcast.

    ``euclidean`` is the squared distance divided by the number of channels, because the plain one would
    saturate a softmax. ``cosine`` is twenty times the cosine.
    """
    if distance == "cosine":
        return _COSINE_SCALE * cosine_similarity(vectors, prototypes, dim=-1)
    return -(vectors - prototypes).square().mean(-1)
