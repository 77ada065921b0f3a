"""Encodings of test images in two dimensions, by t-SNE or by principal components, coloured by class.

Scikit-learn and Matplotlib are imported when a figure is made.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from fewseg.dataset.episodes.sampling import generator
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.engine.reports.figures.sheet import text_width
from fewseg.engine.reports.figures.style import (
    COLUMN_WIDTH,
    FONT_SIZE,
    empty_figure,
    label_colours,
    paper_style,
)
from fewseg.model.fewshot import FewShotModel
from fewseg.model.object_vector import object_vector
from fewseg.util.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Projection = Literal["tsne", "pca"]
TITLES: dict[Projection, str] = {"tsne": "t-SNE", "pca": "principal components"}

FEWEST = 5
"""Objects that a projection needs at least."""

MOST = 20
"""Classes of a figure at most, because more colours cannot be told apart."""

_PERPLEXITY = 30.0
_MARGIN = 0.04
"""Space around the points' frame, in inches."""
_MARKER = 0.25
"""Space for the marker of an entry of the legend, in inches."""


@dataclass(frozen=True)
class ObjectVectors:
    """The encodings of annotated objects.

    Attributes:
        vectors: float32 [n,C].
        class_ids: dataset id of every object's class, int64 [n].
        novel: names of the novel classes by dataset id.
        base: names of the base classes by dataset id.
    """

    vectors: np.ndarray
    class_ids: np.ndarray
    novel: dict[int, str]
    base: dict[int, str]


def collect_vectors(model: FewShotModel, episodes: EpisodeSet, per_class: int = 30) -> ObjectVectors:
    """Encode the objects of the test images as supports, at most ``per_class`` of each of 20 classes.

    Of more classes, novel and base ones are taken in equal parts, evenly over their ids, as far as there are.
    An object is a class's whole mask in one image. Which ones are encoded depends on the fold alone. Masks
    that are smaller than the protocol's smallest support are left out.
    """
    fold = episodes.fold
    classes = (*fold.classes.novel, *fold.classes.base)
    held = fold.val_areas.at_least(classes, max(1, fold.protocol.min_area))
    names = fold.val_images.names
    present = [class_id for column, class_id in enumerate(classes) if held[:, column].any()]
    few = few_classes(present, set(fold.classes.novel))
    chosen = [
        (names[int(row)], class_id)
        for column, class_id in enumerate(classes)
        if class_id in few
        for row in _drawn(np.flatnonzero(held[:, column]), per_class, generator("encodings", class_id))
    ]
    vectors = []
    for name, class_id in progress(chosen, "objects"):
        image, mask = (tensor[None].to(model.device) for tensor in episodes.load_support(name, class_id))
        number = torch.tensor([class_id])
        vectors.append(object_vector(model.eval(), image, mask, number)[0].float().cpu().numpy())
    shown = {class_id for _, class_id in chosen}
    return ObjectVectors(
        np.stack(vectors) if vectors else np.zeros((0, 1), np.float32),
        np.array([class_id for _, class_id in chosen]),
        {number: fold.classes.label(number) for number in fold.classes.novel if number in shown},
        {number: fold.classes.label(number) for number in fold.classes.base if number in shown},
    )


def few_classes(present: Sequence[int], novel: Collection[int]) -> set[int]:
    """Return at most 20 of the classes with objects, novel and base ones in equal parts where there are."""
    parts = [[c for c in present if c in novel], [c for c in present if c not in novel]]
    base = min(len(parts[1]), max(MOST // 2, MOST - len(parts[0])))
    numbers = min(len(parts[0]), MOST - base), base
    return {
        part[index * len(part) // number]
        for part, number in zip(parts, numbers, strict=True)
        for index in range(number)
    }


def project(vectors: np.ndarray, projection: Projection = "tsne", seed: int = 0) -> np.ndarray:
    """Project vectors [n,C], scaled to length one, to two dimensions, [n,2].

    t-SNE has a perplexity of 30, or less for fewer than 91 vectors, and starts from the principal components.

    Raises:
        ValueError: there are fewer than five vectors.
    """
    if len(vectors) < FEWEST:
        raise ValueError(f"a projection needs at least {FEWEST} vectors, got {len(vectors)}")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if projection == "pca":
        from sklearn.decomposition import PCA

        return PCA(2, random_state=seed).fit_transform(unit)
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit)


def encodings_figure(objects: ObjectVectors, projection: Projection = "tsne") -> Figure:
    """Return a figure of encodings in the width of a column: novel classes as discs, base classes as crosses.

    Raises:
        ValueError: there are fewer than five encodings.
    """
    points = project(objects.vectors, projection)
    classes = {**objects.novel, **objects.base}
    colours = [tuple(part / 255 for part in colour) for colour in label_colours(len(classes))]
    widest = max(text_width(f"{name} (novel)") for name in classes.values())
    columns = max(1, int(COLUMN_WIDTH / (widest + _MARKER)))
    lines = -(-len(classes) // columns)
    below = (lines + 0.5) * 1.45 * FONT_SIZE / 72
    height = COLUMN_WIDTH + below
    with paper_style():
        figure = empty_figure(COLUMN_WIDTH, height)
        margin, side = _MARGIN / COLUMN_WIDTH, COLUMN_WIDTH - 2 * _MARGIN
        axes = figure.add_axes((margin, (below + _MARGIN) / height, 1 - 2 * margin, side / height))
        for (number, name), colour in zip(classes.items(), colours, strict=True):
            chosen = points[objects.class_ids == number]
            novel = number in objects.novel
            label, marker = (f"{name} (novel)", "o") if novel else (f"{name} (base)", "x")
            width = 0 if novel else 0.7
            axes.scatter(
                chosen[:, 0], chosen[:, 1], s=10, color=[colour], label=label, marker=marker, linewidths=width
            )
        axes.set_xticks([])
        axes.set_yticks([])
        figure.legend(
            loc="lower left",
            bbox_to_anchor=(0, 0, 1, below / height),
            mode="expand",
            ncols=columns,
            frameon=False,
            borderaxespad=0.1,
            handletextpad=0.1,
            columnspacing=0.5,
            labelspacing=0.25,
        )
    return figure


def _drawn(rows: np.ndarray, number: int, rng: random.Random) -> list[int]:
    listed = rows.tolist()
    return listed if len(listed) <= number else sorted(rng.sample(listed, number))
