"""PMMs: B. Yang, C. Liu, B. Li, J. Jiao, Q. Ye, "Prototype Mixture Models for Few-shot Semantic
Segmentation", ECCV 2020.

CANet's network with several prototypes instead of one. The prototypes of the object are compared with the
query one by one (P-Match). Together with those of the background they also classify its positions (P-Conv);
this classification takes the place of CANet's previous prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.mixture_guided import MixtureGuided, MixtureOptions
from fewseg.model.options import Count


@dataclass(frozen=True)
class PMMOptions(MixtureOptions):
    """Options of PMMs.

    Attributes:
        components: number of prototypes of the object, and of the background; 3 as published.
    """

    components: Count = 3


class PMM(MixtureGuided):
    """One mixture and one pass of the head."""

    Options = PMMOptions

    def __init__(self, build: BuildArguments, options: PMMOptions) -> None:
        super().__init__(
            build,
            options,
            (options.components,),
            normalise=True,
            joins_posterior=False,
            reads_history=options.p_conv,
        )

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        (compared,), (posterior,) = self.compare(query, guidance), self.classify(query, guidance)
        logits = self.refine(self.match_maps(compared), posterior)
        found = {} if posterior is None else {"posterior0": posterior}
        found |= self.assignments(query, guidance)
        return Prediction(logits, {**guidance, **found, "stage0": logits})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        label, ignore = episode.ground_truth, not self.options.void_as_background
        return {
            "main": pixel_cross_entropy(prediction.logits, label, align_corners=False, ignore_void=ignore)
        }
