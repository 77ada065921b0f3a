"""Fine-tuning on the annotated supports only, the usual way that EFTNet's paper argues against."""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.model.adapt.episode import AdaptedEpisode, Outcome, Support
from fewseg.model.episode import IGNORE, UNLABELLED, Prediction


class SupportTunedEpisode(AdaptedEpisode):
    """A single query and its K supports, and a model that is fine-tuned on the supports.

    In every round each support is segmented with the other ones and compared with its own mask. Its own place
    among the K supports is taken by the support after it (by the first one after the last), because the
    fusion of shots expects K supports. A single support is therefore segmented with itself as the support.
    The losses are those of EFTNet, with the supports' masks instead of the query's pseudo label, averaged
    over the supports; unlabelled and void pixels do not count.

    The query is segmented with the supports alone. Nothing of it is blended in, so the first round, which
    precedes the first step, gives the unadapted model's prediction. A score, if scores decide, is computed
    without blending too.
    """

    def round(self, before: Prediction) -> Outcome:
        """Run one round; ``before`` is read only where scores are compared."""
        supports = self._supports()
        with torch.no_grad():
            prediction = self._predict(0, supports, None)
        label = self.pseudo_label(before)
        return self._outcome(prediction, label, None, self._support_losses(supports), supports, alone=True)

    def _support_losses(self, supports: list[Support]) -> dict[str, Tensor]:
        """Return the losses of segmenting every support with the others, as means over the supports."""
        shots = []
        for shot, mask in enumerate(self.masks):
            other = supports[(shot + 1) % len(supports)]
            others = [*supports[:shot], other, *supports[shot + 1 :]]
            prediction = self._predict(shot + 1, others, None)
            shots.append(self._losses(prediction, mask.masked_fill(mask == UNLABELLED, IGNORE)))
        return {name: torch.stack([losses[name] for losses in shots]).mean() for name in shots[0]}
