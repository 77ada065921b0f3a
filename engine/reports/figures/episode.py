"""A figure of one episode: its images, the prediction, and every map that the model declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fewseg.dataset.loading.evaluation import EpisodeSet, PlannedEpisode
from fewseg.dataset.reading.transform import MEAN, STD, class_table, relabel
from fewseg.engine.evaluation.one_by_one import predict
from fewseg.engine.reports.figures.maps import HeatMap, LabelMap, maps_of
from fewseg.engine.reports.figures.sheet import COLUMNS, Tile, sheet
from fewseg.engine.reports.panels import foreground_iou, label_map
from fewseg.engine.reports.pictures import outline, overlay
from fewseg.model.contract import Episode, Map, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.util.metrics import resize_logits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ShownEpisode:
    """The pictures of an episode.

    Attributes:
        supports: images, uint8 [H,W,3], and masks [H,W] of 0, 1 and other values for neither.
        query: image, uint8 [H,W,3].
        truth: labels [H,W] of 0..N and 255, or None.
        prediction: labels [H,W] of 0..N.
        maps: the model's maps over the query.
        query_title: caption of the query.
        iou: IoU of the prediction, or None.
    """

    supports: Sequence[tuple[np.ndarray, np.ndarray]]
    query: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray
    maps: Sequence[HeatMap | LabelMap] = ()
    query_title: str = "query"
    iou: float | None = None

    def tiles(self, supports: int | None = None) -> list[Tile]:
        """Return the captioned pictures: the supports, at most as many as given, the query, the maps."""
        shown = self.supports[:supports]
        numbers = [f" {number + 1} of {len(self.supports)}" for number in range(len(self.supports))]
        tiles = [
            Tile(f"support{number if len(self.supports) > 1 else ''}", outline(image, mask))
            for number, (image, mask) in zip(numbers, shown, strict=False)
        ]
        if self.truth is None:
            tiles.append(Tile(self.query_title, self.query))
        else:
            tiles.append(Tile(f"{self.query_title}, truth", overlay(self.query, self.truth)))
        measured = "" if self.iou is None else f", IoU {self.iou:.1%}"
        tiles.append(Tile(f"prediction{measured}", overlay(self.query, self.prediction)))
        return [*tiles, *map(self._tile, self.maps)]

    def _tile(self, shown: HeatMap | LabelMap) -> Tile:
        legend = shown.legend if isinstance(shown, LabelMap) else {}
        return Tile(shown.caption, shown.over(self.query), isinstance(shown, HeatMap), legend)


def episode_figure(
    model: FewShotModel,
    episode: Episode,
    prediction: Prediction | None = None,
    *,
    maps: Sequence[Map] | None = None,
    base_names: Sequence[str] = (),
) -> Figure:
    """Return a Matplotlib figure of an episode and of what ``model`` makes of it, for a notebook or a paper.

    It shows the supports, the query, the prediction and all maps that the model declares. It is 7 inches wide
    if it has six pictures or more; ``write_figure`` writes it as PNG of 300 dpi and as PDF.

    Args:
        model: the model; it is set to evaluation mode if it has to predict.
        episode: a batch of one query, with images normalised by ImageNet's statistics.
        prediction: its prediction, such as an adapter's; by default the model's.
        maps: what is shown of it; by default what the model declares.
        base_names: names of the base classes, for the base learner's prediction.

    Raises:
        ValueError: the episode has several queries.
    """
    if len(episode.query) != 1:
        raise ValueError(f"a figure shows one query, the episode has {len(episode.query)}; take one of them")
    if prediction is None:
        prediction = predict(model.eval(), episode.to(model.device))
    rows, columns = _content(episode)
    query = _photograph(episode.query[0])[:rows, :columns]
    frame = partial(_framed, size=episode.size, content=(rows, columns), image=(rows, columns))
    predicted = frame(prediction.logits).argmax(0)
    truth = None
    if episode.query_mask is not None:
        truth = episode.query_mask[0, :rows, :columns].cpu().numpy()
    images, masks = episode.support[0].flatten(0, 1), episode.support_mask[0].flatten(0, 1)
    shown = ShownEpisode(
        [(_photograph(image), mask.cpu().numpy()) for image, mask in zip(images, masks, strict=True)],
        query,
        truth,
        predicted,
        maps_of(model.maps if maps is None else maps, prediction, frame, base_names),
        iou=None if truth is None else foreground_iou(predicted, truth),
    )
    return sheet(in_rows(shown.tiles()))


def shown_episode(
    maps: Sequence[Map],
    episodes: EpisodeSet,
    planned: PlannedEpisode,
    prediction: Prediction,
    *,
    iou: float,
    base_names: Sequence[str],
) -> ShownEpisode:
    """Return the pictures of an episode of a test at the images' original size.

    Args:
        maps: what is shown of the prediction.
        episodes: the episodes of the test.
        planned: the episode.
        prediction: its prediction as a batch of one.
        iou: its IoU, as the test has counted it.
        base_names: names of the base classes of the training.
    """
    spec, fold = planned.spec, episodes.fold
    query, mask = episodes.store.named(spec.query)
    size = mask.shape
    frame = partial(
        _framed, size=fold.resize.canvas(*size), content=fold.resize.content(*size), image=(size[0], size[1])
    )
    names = [fold.classes.names[class_id] for class_id in spec.class_ids]
    return ShownEpisode(
        [episodes.annotated(*support) for support in planned.supports],
        query,
        relabel(mask, class_table(spec.class_ids)),
        label_map(prediction.logits, fold.resize, *size),
        maps_of(maps, prediction, frame, base_names),
        query_title=f"query ({', '.join(names)})",
        iou=iou,
    )


def in_rows(tiles: Sequence[Tile]) -> list[Sequence[Tile]]:
    """Distribute pictures over rows."""
    return [tiles[first : first + COLUMNS] for first in range(0, len(tiles), COLUMNS)]


def _framed(
    maps: Tensor, *, size: tuple[int, int], content: tuple[int, int], image: tuple[int, int]
) -> np.ndarray:
    """Bring maps [1,C,h,w] of a network's input to the image.

    Args:
        maps: maps at any resolution.
        size: height and width of the network's input.
        content: height and width of its part that is not padding.
        image: height and width of the image.
    """
    maps = resize_logits(maps.detach().float(), size)
    maps = resize_logits(maps[..., : content[0], : content[1]], image, align_corners=False)
    return maps[0].cpu().numpy()


def _content(episode: Episode) -> tuple[int, int]:
    """Return height and width of the part of the query that is not padding."""
    if episode.query_padding is None:
        return episode.size
    held = ~episode.query_padding[0]
    return int(held.any(1).sum()), int(held.any(0).sum())


def _photograph(image: Tensor) -> np.ndarray:
    """Undo the normalisation of an image [3,H,W] -> uint8 [H,W,3]."""
    levels = image.detach().cpu().permute(1, 2, 0).numpy() * np.array(STD) + np.array(MEAN)
    return np.ascontiguousarray(levels.round().clip(0, 255).astype(np.uint8))
