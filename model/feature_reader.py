"""Which backbone features a few-shot model reads of queries and supports, and how it computes them."""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.model.contract import BaseHead, MetaLearner, Network
from fewseg.model.ensemble import BaseMetaEnsemble
from fewseg.model.input_view import query_input, support_input
from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.resize import resize_like
from fewseg.model.records import BASE_FEATURE, IMAGE_FEATURE, SupportView

Features = dict[str, Tensor]


class FeatureReader(Network):
    """Runs the backbone for a meta-learner and, if there are any, a base learner's head and an ensemble.

    Attributes:
        meta: the method.
        base_head: the base learner's classifier, frozen; or None.
        ensemble: merges the predictions of both; or None.
    """

    meta: MetaLearner
    base_head: BaseHead | None
    ensemble: BaseMetaEnsemble | None

    @property
    def trains_backbone(self) -> bool:
        """Whether the backbone is trained; with a base learner, whose head reads it, it is frozen."""
        return self.meta.learning.backbone and self.base_head is None

    def query_features(self, image: Tensor) -> Features:
        """Return all features of query images that the model reads."""
        names = {*self.meta.inputs.query, *self._shared_reads()}
        return self._features(query_input(self.meta.inputs, image), names)

    def support_features(self, image: Tensor, mask: Tensor, *, within_mask: bool = False) -> Features:
        """Return all features of support images that the model reads, see ``SupportView``.

        ``within_mask`` is explained at ``mask_high``.
        """
        names = {*self.meta.inputs.support, *self._ensemble_features()}
        image = support_input(self.meta.inputs, image, mask)
        if self.meta.inputs.view is not SupportView.MASKED_LAYER4:
            return self._features(image, names)
        features = self._features(image, names - {"high"} | {self._high_from})
        return self.mask_high(features, mask, within_mask=within_mask)

    def mask_high(self, features: Features, mask: Tensor, *, within_mask: bool = False) -> Features:
        """Return ``features`` with the ``high`` feature computed from masked features, mask [B,H,W].

        Methods read it only where the mask is set. With ``within_mask`` it may be zero elsewhere, which is
        less work for a CPU.
        """
        spec = self.backbone.spec
        (high,) = spec.names(("high",))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains_backbone):
            before = features[self._high_from]
            inside = resize_like(foreground(mask), before)
            masked = before * inside
            if within_mask:
                deep = self.backbone.run_stage_within(high, masked, inside > 0)
            else:
                deep = self.backbone.run_stage(high, masked)
            return spec.by_role({**features, high: deep})

    def shared_features(self, image: Tensor) -> Features:
        """Return the backbone features of images that are used both as query and as support."""
        names = {*self.meta.inputs.query, *self.meta.inputs.support, *self._shared_reads()}
        if self.meta.inputs.view is SupportView.MASKED_LAYER4:
            names.add(self._high_from)
        return self._features(image, names)

    def as_support(self, features: Features, mask: Tensor) -> Features:
        """Turn ``shared_features`` into those of a support with ``mask`` [B,H,W], by which they are read."""
        view = self.meta.inputs.view
        if view in (SupportView.MASKED_IMAGE, SupportView.MASK_CHANNEL):
            raise ValueError(
                "a support whose backbone sees its mask cannot be encoded from features of the plain image"
            )
        if view is not SupportView.MASKED_LAYER4:
            return features
        return self.mask_high(features, mask, within_mask=True)

    @property
    def _high_from(self) -> str:
        """The feature from which the backbone computes the high one."""
        name = self.backbone.spec.high_from
        assert name is not None  # create_model refuses a method that masks it on another backbone
        return name

    def _shared_reads(self) -> tuple[str, ...]:
        """Return the features of queries that the base learner and the ensemble read."""
        return self._ensemble_features() if self.base_head is None else (*self._ensemble_features(), "high")

    def _ensemble_features(self) -> tuple[str, ...]:
        return () if self.ensemble is None else self.ensemble.features

    def _features(self, image: Tensor, names: set[str]) -> Features:
        from_backbone = names - {BASE_FEATURE, IMAGE_FEATURE} | ({"high"} if BASE_FEATURE in names else set())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains_backbone):
            features = self.backbone(image, sorted(from_backbone)) if from_backbone else {}
        if IMAGE_FEATURE in names:
            features[IMAGE_FEATURE] = image
        if BASE_FEATURE in names:
            assert self.base_head is not None  # create_model refuses a method that reads it without one
            with torch.no_grad():
                features[BASE_FEATURE] = self.base_head.embed(features["high"])
        return features
