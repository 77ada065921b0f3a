"""RPMMs, the residual form of PMMs: B. Yang, C. Liu, B. Li, J. Jiao, Q. Ye, "Prototype Mixture Models for
Few-shot Semantic Segmentation", ECCV 2020, section 3.4.

The same network segments with mixtures of one, three and six prototypes, one after the other; every stage
reads the prediction of the stage before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.mixture_guided import MixtureGuided, MixtureOptions
from fewseg.model.options import Count

_PUBLISHED_DIVISOR = 5


@dataclass(frozen=True)
class RPMMOptions(MixtureOptions):
    """Options of RPMMs.

    Attributes:
        components: number of prototypes of the object, and of the background, in every stage.
        calibrated: whether the probabilities with several supports are the mean over the stages. Published:
            False, their sum divided by 5 is used as logits. The class of every pixel is the same.
    """

    components: tuple[Count, ...] = (1, 3, 6)
    calibrated: bool = False


class RPMM(MixtureGuided):
    """One mixture per stage; all stages share the same weights."""

    Options = RPMMOptions
    options: RPMMOptions

    def __init__(self, build: BuildArguments, options: RPMMOptions) -> None:
        super().__init__(
            build,
            options,
            tuple(options.components),
            normalise=False,
            joins_posterior=options.p_conv,
            reads_history=True,
        )

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature = query["feature"]
        history = feature.new_zeros(len(feature), 2, *feature.shape[2:])
        compared, posteriors = self.compare(query, guidance), self.classify(query, guidance)
        parts, stages = {**guidance, **self.assignments(query, guidance)}, []
        for index, (matched, posterior) in enumerate(zip(compared, posteriors, strict=True)):
            joined = matched if posterior is None else torch.cat([matched, posterior], 1)
            logits = self.refine(self.match_maps(joined), history)
            history = logits.softmax(1)
            stages.append(history)
            parts |= {f"stage{index}": logits}
            parts |= {} if posterior is None else {f"posterior{index}": posterior}
        shots = guidance["area"].shape[1]
        return Prediction(logits if self.training or shots == 1 else self._joined(stages), parts)

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        label, ignore = episode.ground_truth, not self.options.void_as_background
        stages = {f"stage{n}": prediction.parts[f"stage{n}"] for n in range(len(self.components) - 1)}
        return {
            name: pixel_cross_entropy(logits, label, align_corners=False, ignore_void=ignore)
            for name, logits in {**stages, "main": prediction.logits}.items()
        }

    def _joined(self, stages: list[Tensor]) -> Tensor:
        """Turn the probabilities of all stages into logits; used with several supports."""
        first, *others = stages
        total = sum(others, first)
        return (total / len(stages)).log() if self.options.calibrated else total / _PUBLISHED_DIVISOR
