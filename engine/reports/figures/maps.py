"""From the parts of a prediction that a model declares as maps to pictures of them over the query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import cv2
import numpy as np
from torch import Tensor

from fewseg.engine.reports.figures.style import heat_colours, label_colours
from fewseg.model.contract import Map, MapKind, Prediction
from fewseg.model.encoding import LOGITS

Frame = Callable[[Tensor], np.ndarray]
"""Brings maps [1,C,h,w] of the network's input to the image, float32 [C,H,W]."""

_HEAT, _LABEL = 0.65, 0.6
"""Opacity of heat maps and of labels."""
_SERIES = "#"
_LABELLED = (MapKind.ASSIGNMENT, MapKind.BASE_CLASSES)


@dataclass(frozen=True)
class HeatMap:
    """Values over an image.

    Attributes:
        title: what they are.
        values: float32 [H,W].
        limits: values of the lowest and the highest colour.
    """

    title: str
    values: np.ndarray
    limits: tuple[float, float]

    @property
    def caption(self) -> str:
        """The title with the values of the lowest and the highest colour."""
        low, high = self.limits
        return f"{self.title} ({_short(low)}\xa0to\xa0{_short(high)})"  # the brackets stay in one line

    def over(self, image: np.ndarray) -> np.ndarray:
        """Return the map over the grey version of ``image``, RGB uint8 [H,W,3]."""
        low, high = self.limits
        scaled = (self.values - low) / max(high - low, 1e-12)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        return _blend(np.repeat(grey, 3, 2), heat_colours(scaled), _HEAT)


@dataclass(frozen=True)
class LabelMap:
    """Labels over an image.

    Attributes:
        title: what they are.
        labels: position of every pixel's label among ``names``, int64 [H,W].
        names: what the labels are called.
    """

    title: str
    labels: np.ndarray
    names: tuple[str, ...]

    @property
    def caption(self) -> str:
        """The title."""
        return self.title

    @property
    def legend(self) -> dict[str, tuple[int, int, int]]:
        """Name -> colour of the labels that occur."""
        colours = label_colours(len(self.names))
        return {self.names[label]: colours[label] for label in np.unique(self.labels)}

    def over(self, image: np.ndarray) -> np.ndarray:
        """Return the labels' colours over ``image``, RGB uint8 [H,W,3]."""
        return _blend(image, np.asarray(label_colours(len(self.names)))[self.labels], _LABEL)


def maps_of(
    maps: Sequence[Map], prediction: Prediction, frame: Frame, base_names: Sequence[str] = ()
) -> list[HeatMap | LabelMap]:
    """Return the declared maps that a prediction of one query contains.

    Of an episode with several ways, whose maps have an axis for them, those of the first way are returned.

    Args:
        maps: what the model declares, see ``FewShotModel.maps``.
        prediction: the prediction as a batch of one.
        frame: brings maps to the image.
        base_names: names of the base classes, in the order of the base learner's channels.
    """
    shown: list[HeatMap | LabelMap] = []
    for entry, part in _found(maps, {**prediction.parts, LOGITS: prediction.logits}):
        channels = frame(_scores(entry.kind, part))
        if entry.kind in _LABELLED:
            names = entry.names
            if entry.kind is MapKind.BASE_CLASSES:
                unnamed = [f"base class {number}" for number in range(1, len(channels))]
                names = ("background", *(base_names or unnamed))
            shown.append(LabelMap(entry.title, channels.argmax(0), _names(names, len(channels))))
        else:
            titles = _titles(entry, len(channels), prediction.parts)
            shown += [
                HeatMap(title, values, entry.limits or (float(values.min()), float(values.max())))
                for title, values in zip(titles, channels, strict=True)
            ]
    return shown


def _found(maps: Sequence[Map], parts: Mapping[str, Tensor]) -> Iterator[tuple[Map, Tensor]]:
    """Yield every map with its part [1,C,h,w]; a series as one map for each of its parts."""
    for entry in maps:
        for number in count() if _SERIES in entry.part else range(1):
            name = entry.part.replace(_SERIES, str(number))
            if name not in parts:
                break
            part = parts[name].detach().float()
            if _SERIES in entry.title and _SERIES not in entry.part:
                yield from _along_axis(entry, part)
                continue
            part = part[:, 0] if part.ndim == 5 else part
            part = part.unsqueeze(1) if part.ndim == 3 else part
            yield _numbered(entry, number), part


def _along_axis(entry: Map, part: Tensor) -> Iterator[tuple[Map, Tensor]]:
    """Yield the maps of a series along the second axis of a part [1,n,C,h,w], with common limits."""
    if entry.limits is None:
        shown = _scores(entry.kind, part[0])
        entry = replace(entry, limits=(float(shown.min()), float(shown.max())))
    for number, single in enumerate(part.unbind(1)):
        yield _numbered(entry, number), single


def _numbered(entry: Map, number: int) -> Map:
    return replace(entry, title=entry.title.replace(_SERIES, str(entry.first + number)))


def _scores(kind: MapKind, part: Tensor) -> Tensor:
    """Turn a part [1,C,h,w] into what is resized to the image."""
    if kind is MapKind.FOREGROUND:
        return 1 - part.softmax(1)[:, :1]
    if kind is MapKind.MEAN:
        return part.mean(1, keepdim=True)
    return part.sigmoid() if kind is MapKind.LOGITS else part


def _titles(entry: Map, channels: int, parts: Mapping[str, Tensor]) -> list[str]:
    if channels == 1:
        titles = [entry.title]
    else:
        titles = [f"{entry.title}: {name}" for name in _names(entry.names, channels)]
    if entry.weights is None or entry.weights not in parts:
        return titles
    weights = parts[entry.weights][0].flatten().tolist()
    return [f"{title}, weight {weight:.2f}" for title, weight in zip(titles, weights, strict=False)]


def _names(names: Sequence[str], channels: int) -> tuple[str, ...]:
    """Return a name for every channel; those without one have numbers, from 1 on."""
    return (*names[:channels], *(str(number + 1) for number in range(len(names), channels)))


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"


def _blend(image: np.ndarray, colours: np.ndarray, opacity: float) -> np.ndarray:
    return ((1 - opacity) * image + opacity * colours).round().astype(np.uint8)
