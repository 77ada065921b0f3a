"""Generalised few-shot segmentation: base classes and a novel class in one map (BAM, section 4.5).

The predictions of few-shot model and base learner are merged at the label's size, without training, in one of
two ways: pixels that both assign a class get the novel class under ``final``, the base class under ``base``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.episodes.sampling import EpisodeSpec
from fewseg.engine.evaluation.measure import Measurement, Run, count_runs, open_run
from fewseg.engine.evaluation.outcome import counts_of
from fewseg.engine.evaluation.scores import PartCounts, Scores
from fewseg.engine.evaluation.session import Session
from fewseg.engine.evaluation.tally import Tally
from fewseg.engine.setup.tested_data import tests_other_data
from fewseg.model.contract import Prediction
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError
from fewseg.util.metrics import count_per_image, merge_generalised, resize_logits
from fewseg.util.results.result import Result

MERGES = ("final", "base")


class GeneralizedScores(Scores):
    """The counts of one seed under both merges; the metrics are those of the chosen merge, ``part``.

    Args:
        fold: the fold, with its classes and protocol.
        manifest: the episodes of the seed.
        merge_tau: a pixel is of the novel class where its probability exceeds this.
    """

    part = MERGES[0]
    whole = ()

    def __init__(self, fold: Fold, manifest: Manifest, merge_tau: float) -> None:
        super().__init__(fold, manifest)
        self.merge_tau = merge_tau
        self.first_novel = 1 + len(fold.classes.base)
        self.classes = dict.fromkeys(MERGES, self.first_novel + len(fold.classes.novel))
        self.episodes = {merge: self._no_counts(1 + self.first_novel) for merge in MERGES}

    def choose(self, merge: str) -> None:
        """Choose the merge whose metrics and counts are returned."""
        self.part = merge

    def rows(self, index: int) -> list[int]:
        """Return the meters' rows for background, base classes and the novel class of an episode."""
        (class_id,) = self.manifest[index].class_ids
        return [*range(self.first_novel), self.first_novel + self.fold.classes.novel.index(class_id)]

    def count(self, specs: Sequence[EpisodeSpec], prediction: Prediction, label: np.ndarray) -> PartCounts:
        """Count both merges for B episodes of one query; see ``Scores``."""
        tables = np.repeat(self.fold.classes.base_table[None], len(specs), axis=0)
        for table, spec in zip(tables, specs, strict=True):
            table[spec.class_ids[0]] = self.first_novel
        targets = self.targets(label, [*tables], prediction.logits)
        size, corners = targets.shape[-2:], self.fold.protocol.align_corners
        final, base = (
            resize_logits(self.without_padding(logits, size), size, align_corners=corners)
            for logits in (prediction.logits, prediction.parts["base"])
        )
        counts = {}
        for merge in MERGES:
            merged = merge_generalised(final, base, merge, self.merge_tau)
            counts[merge] = torch.stack(count_per_image(merged, targets, self.first_novel + 1), dim=2)
        return counts

    def count_base(self, prediction: Prediction, label: np.ndarray) -> PartCounts:
        """Return no counts: the base learner's prediction is part of the merged one."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Return the mean IoU of novel, base and all classes, and FB-IoU, as fractions."""
        meter = self.meter(self.part)
        parts = {"n": slice(self.first_novel, None), "b": slice(1, self.first_novel), "t": slice(1, None)}
        present_only = self.fold.protocol.leaves_absent_out
        means = {
            f"mIoU_{name}": meter.mean_iou(classes, present_only=present_only)
            for name, classes in parts.items()
        }
        return means | {"FB-IoU": meter.foreground_background_iou()}

    def class_iou(self) -> dict[str, float | None]:
        """Return the IoU of every base and every novel class by its name; None where no query shows it."""
        split = self.fold.classes
        names = map(split.label, (*split.base, *split.novel))
        return dict(zip(names, self.meter(self.part).class_iou_if_tested()[1:], strict=True))


def expected_generalized(run: Run) -> list[Result]:
    """Return the results of a test run before the test, without metrics: one per merge.

    Raises:
        ConfigError: the model has no base learner, episodes have several ways, or the data are not those of
            the training.
    """
    if tests_other_data(run.config):
        raise ConfigError(
            f"generalized: the base classes of the training on {run.config.Data.data_set} are no classes of "
            f"{run.episodes.fold.data_set}; leave out generalized, or test on the data of the training"
        )
    if run.config.Data.ways > 1:
        raise ConfigError("generalized: an episode asks for one novel class; set ways 1")
    if not run.model.holds_base_learner:
        raise ConfigError(
            f"generalized: {run.config.Method.arch} has no base learner to segment the base classes; "
            "test a method with one, such as bam"
        )
    return [run.adapted_result(setting=f"generalised-{merge}") for merge in MERGES]


def measure_generalized(
    configs: Sequence[Config],
    device: torch.device,
    session: Session | None = None,
) -> Iterator[list[Measurement]]:
    """Test the models that ``configs`` name on base and novel classes together.

    The arguments are those of ``measure``; one measurement per merge is yielded for each config.

    Raises:
        ConfigError: see ``expected_generalized``.
    """
    session = session or Session()
    runs = [open_run(config) for config in configs]
    tallies = []
    for run in runs:
        first, *_ = expected_generalized(run)
        make = partial(GeneralizedScores, merge_tau=run.config.Method.merge_tau)
        tallies.append(Tally(run.episodes, make, session.watch(), kept=session.kept(first)))
    for run, tally in zip(runs, count_runs(runs, tallies, device, session), strict=True):
        yield [_measured(run, tally.total(), merge, tally.seconds) for merge in MERGES]


def _measured(run: Run, scores: Sequence[Scores], merge: str, seconds: float) -> Measurement:
    for score in scores:
        assert isinstance(score, GeneralizedScores)  # as the tally makes them
        score.choose(merge)
    result = run.adapted_result(scores, setting=f"generalised-{merge}", seconds=seconds)
    return Measurement(result, (), {}, counts_of(scores))
