"""The counts of every episode of a test run: a compact file beside the result, for intervals and comparisons.

The file is a NumPy archive without pickled objects. Sums over the episodes give back the result's metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from fewseg.util.errors import ResultError
from fewseg.util.metrics import EPSILON
from fewseg.util.results.archive import read_archive, write_archive

VERSION = 1
_BLOCK = 1 << 22
"""Episodes that are drawn at a time in the bootstrap."""

_PARTS = {"": "counts", "_meta": "meta"}
"""End of a metric's name -> whose counts it is made of."""


@dataclass(frozen=True)
class EpisodeCounts:
    """The counts of S seeds of E episodes each, for R classes per episode.

    Attributes:
        hashes: of the episodes of every seed, str [S].
        rows: which classes an episode counts, of all the result's classes, 0 the background; int16 [S,E,R].
        counts: intersection, union and target of each, int32 [S,E,R,3].
        meta: likewise for the meta-learner alone; empty where there is none.
        classes: number of classes, the background included.
        first_novel: the classes from here on are novel, those below but the background are base classes.
        left_out: whether classes that never occur are left out of means, instead of counting as 0.
    """

    hashes: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    meta: np.ndarray
    classes: int
    first_novel: int
    left_out: bool

    def names(self) -> list[str]:
        """Return the metrics that follow from the counts."""
        ends = [end for end, part in _PARTS.items() if getattr(self, part).size]
        generalised = self.first_novel > 1
        names = ["mIoU_n", "mIoU_b", "mIoU_t", "FB-IoU"] if generalised else ["mIoU", "FB-IoU", "pIoU"]
        return [name + end for end in ends for name in names]

    def value(self, metric: str) -> float:
        """Return the metric's mean over the seeds."""
        once = np.ones((1, self.rows.shape[1]))
        sums = [once @ self._by_class(seed, metric) for seed in range(len(self.hashes))]
        return float(np.mean([self._metric(total, metric) for total in sums]))

    def resample(self, metric: str, draws: int, seed: int = 0) -> np.ndarray:
        """Return the metric over ``draws`` sets of episodes drawn with replacement, float [draws].

        Every seed's episodes are drawn on their own. Equal hashes give equal draws, so the results of two
        methods on the same episodes can be subtracted.
        """
        seeds = range(len(self.hashes))
        return np.mean([self._resampled(number, metric, draws, seed) for number in seeds], axis=0)

    def _resampled(self, number: int, metric: str, draws: int, seed: int) -> np.ndarray:
        episodes = self.rows.shape[1]
        rng = np.random.default_rng([seed, int(str(self.hashes[number])[:15], 16)])
        by_class, values = self._by_class(number, metric), []
        block = max(1, _BLOCK // episodes)
        for start in range(0, draws, block):
            size = min(block, draws - start)
            chosen = rng.integers(episodes, size=(size, episodes)) + episodes * np.arange(size)[:, None]
            times = np.bincount(chosen.reshape(-1), minlength=size * episodes).reshape(size, episodes)
            values.append(self._metric(times.astype(float) @ by_class, metric))
        return np.concatenate(values)

    def _by_class(self, number: int, metric: str) -> np.ndarray:
        """Return the counts of one seed by class, 0 where an episode counts none; float [E, 3 x classes]."""
        part = "meta" if metric.endswith("_meta") else "counts"
        counts, rows = getattr(self, part)[number], self.rows[number]
        by_class = np.zeros((len(rows), 3, self.classes))
        for column in range(rows.shape[1]):
            by_class[np.arange(len(rows)), :, rows[:, column]] += counts[:, column]
        return by_class.reshape(len(rows), -1)

    def _metric(self, sums: np.ndarray, metric: str) -> np.ndarray:
        """Turn sums of counts, [n, 3 x classes], into a metric, [n]."""
        intersection, union, target = sums.reshape(len(sums), 3, self.classes).transpose(1, 0, 2)
        name = metric.removesuffix("_meta")
        pooled = intersection[:, 1:].sum(1) / (union[:, 1:].sum(1) + EPSILON)
        if name == "pIoU":
            return pooled
        if name == "FB-IoU":
            return (intersection[:, 0] / (union[:, 0] + EPSILON) + pooled) / 2
        parts = {"mIoU_n": slice(self.first_novel, None), "mIoU_b": slice(1, self.first_novel)}
        classes = parts.get(name, slice(1, None))
        iou = intersection[:, classes] / (union[:, classes] + EPSILON)
        number = (target[:, classes] > 0).sum(1) if self.left_out else iou.shape[1]
        return iou.sum(1) / np.maximum(number, 1)

    def write(self, path: str | Path) -> None:
        """Write the file atomically."""
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        write_archive(path, {**arrays, "version": np.int64(VERSION)})


def counts_path(result: str | Path) -> Path:
    """Return the file of the counts that belong to a result file."""
    return Path(result).with_suffix(".npz")


def read_counts(path: str | Path) -> EpisodeCounts:
    """Read the counts of a test run.

    Raises:
        ResultError: missing, damaged, or no counts of FewSeg.
    """
    stored = read_archive(path)
    names = [field.name for field in fields(EpisodeCounts)]
    if "version" in stored and stored["version"].tolist() != VERSION:
        raise ResultError(f"{path}: has another version than {VERSION}; test again")
    if not {"version", *names} <= stored.keys():
        raise ResultError(f"{path}: cannot be read (no counts of FewSeg); test again")
    arrays = {name: stored[name] for name in names}
    scalars = {key: arrays[key].item() for key in ("classes", "first_novel", "left_out")}
    return EpisodeCounts(**(arrays | scalars))
