"""One vector per annotated object, by which encodings are compared and shown."""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.pooling import foreground, masked_average_pool
from fewseg.model.layer.resize import resize_like


@torch.inference_mode()
def object_vector(model: FewShotModel, image: Tensor, mask: Tensor, class_id: Tensor) -> Tensor:
    """Return the vectors [B,C] of the objects in support images.

    This is the method's own vector, such as its prototype, or the mean of the deepest feature that it reads
    over the object; see ``Published.object_vector``.

    Args:
        model: the model.
        image: images [B,3,H,W].
        mask: masks [B,H,W] of 0, 1, 255.
        class_id: dataset ids of the classes, [B].
    """
    features = model.support_features(image, mask)
    own = model.encode_support_features(features, mask, class_id).get(model.meta.published.object_vector)
    if own is not None:
        return own.flatten(1, -2)[:, -1] if own.ndim > 2 else own
    deepest = max(features.values(), key=lambda feature: (-feature.shape[-1], feature.shape[1]))
    return masked_average_pool(deepest, resize_like(foreground(mask), deepest))
