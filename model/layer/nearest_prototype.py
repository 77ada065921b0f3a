"""Segmentation by the nearest prototype, as in PANet (Wang et al., ICCV 2019, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fewseg.model.contract import MetaLearner
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Prediction
from fewseg.model.layer.precision import in_float32
from fewseg.model.records import Adaptation, Map, MapKind, Published

_NAMES = ("background", "object")


class NearestPrototype(MetaLearner):
    """A method that assigns a query position to the prototype with the highest cosine similarity.

    The prototypes are those of the background and of every way. There is no head; only the backbone is
    trained.

    Args:
        scale: factor that turns cosines into logits.
    """

    adaptation = Adaptation(blended=("prototype",))
    published = Published(
        maps=(
            Map("cosine", "cosine with the prototype", names=_NAMES),
            Map("cosine", "assignment to the prototypes", MapKind.ASSIGNMENT, names=_NAMES),
        ),
        object_vector="foreground",
    )

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.inputs = self.inputs.reading("signed")  # after a ReLU all cosines would be positive

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {"feature": features["signed"]}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        """Average prototypes over the shots, and the background's over the ways too, to [B,1+N,C].

        If ``encode_support`` returned the support's features, which the alignment loss needs, they are kept.
        """
        background, foreground = support["background"], support["foreground"].mean(-2)
        background = background.mean(tuple(range(1, background.ndim - 1)))
        ways = foreground.reshape(len(background), -1, background.shape[-1])
        guidance = {"prototype": torch.cat([background.unsqueeze(1), ways], 1)}
        return guidance | ({"support_feature": support["feature"]} if "feature" in support else {})

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        score = cosine_scores(query["feature"], guidance["prototype"], self.scale)
        if "support_feature" in guidance:
            guidance = guidance | {"score": score, "query_feature": query["feature"]}
        maps = {} if self.training else {"cosine": score / self.scale}
        return Prediction(score, {**guidance, **maps})


@in_float32
def cosine_scores(feature: Tensor, prototype: Tensor, scale: float) -> Tensor:
    """Return the cosines of features [B,C,h,w] and prototypes [B,P,C], times ``scale``, [B,P,h,w].

    The prototype of an empty mask is zero, and all its cosines are 0.
    """
    scores = [cosine_similarity(feature, p[:, :, None, None], dim=1) for p in prototype.unbind(1)]
    return scale * torch.stack(scores, 1)
