"""Encodes the images of a test in batches, and keeps the encodings that are needed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewseg.dataset.loading.evaluation import LoadedImage, PlannedEpisode, Support
from fewseg.dataset.reading.transform import normalised
from fewseg.engine.evaluation.batch_size import BatchSize
from fewseg.engine.evaluation.cache import EncodingCache
from fewseg.engine.evaluation.images import ImageStream
from fewseg.engine.evaluation.one_by_one import grouped
from fewseg.model.contract import Encoding
from fewseg.model.fewshot import FewShotModel
from fewseg.model.waiting import known_objects, sent

Item = TypeVar("Item")


class Query(NamedTuple):
    """An encoded query.

    Attributes:
        encoding: its encoding as a batch of one.
        label: its label, see ``Fold.scored_label``.
        size: height and width of its image.
    """

    encoding: Encoding
    label: np.ndarray
    size: tuple[int, int]


class Encoder:
    """Encodes images in batches on the device of a model.

    Args:
        model: encodes for all models of the test.
        images: hands out the images.
        cache: keeps the encodings of supports and auxiliary images.
        size: the number of images that are encoded at once.
    """

    def __init__(
        self, model: FewShotModel, images: ImageStream, cache: EncodingCache, size: BatchSize
    ) -> None:
        self._model, self._images, self._cache, self._size = model, images, cache, size
        self._comparisons: dict[tuple[str, Support], Encoding] = {}

    def queries(self, names: Sequence[str]) -> dict[str, Query]:
        """Encode queries, whose comparisons with supports take the place of those of earlier ones."""
        self._comparisons = {}
        found = {}
        for own in chunks(names, self._size.now):
            loaded = [self._images.get(name) for name in own]
            images = self._moved(loaded)
            encodings = _split(self._model.encode_query(images), len(own))
            size = images.shape[-2], images.shape[-1]
            for name, encoding, (_, label) in zip(own, encodings, loaded, strict=True):
                assert label is not None
                found[name] = Query(encoding, label.numpy(), size)
        return found

    def supports(self, batch: Sequence[PlannedEpisode], queries: Mapping[str, Query]) -> Encoding:
        """Return the encodings of all supports and auxiliary images; their first axes are episodes, ways.

        On a CPU those of supports hold their comparisons with the query, which its episodes share. A GPU
        compares a whole batch faster in one operation.
        """
        supports = [key for planned in batch for key in planned.supports]
        auxiliary = [key for planned in batch for key in planned.auxiliary]
        encoded, further = self._encodings(supports), self._encodings(auxiliary)
        if self._model.device.type == "cpu":
            asked = [planned.spec.query for planned in batch for _ in planned.supports]
            pairs = zip(asked, supports, encoded, strict=True)
            encoded = [own | self._compared(name, queries[name], key, own) for name, key, own in pairs]
        return grouped(encoded, further, len(batch), len(batch[0].spec.class_ids))

    def _encodings(self, keys: Sequence[Support]) -> list[Encoding]:
        missing = [key for key in dict.fromkeys(keys) if key not in self._cache]
        fresh: dict[Support, Encoding] = {}
        for own in chunks(missing, self._size.now):
            fresh.update(zip(own, self._encode(own), strict=True))

        def encode(key: Support) -> Encoding:
            # Encodings of this batch may have displaced one that the cache held when it began.
            return fresh[key] if key in fresh else self._encode([key])[0]

        return [self._cache.get(key, partial(encode, key)) for key in keys]

    def _compared(self, name: str, query: Query, key: Support, support: Encoding) -> Encoding:
        """Return the comparisons of a query and a support, which are computed once."""
        if (name, key) not in self._comparisons:
            self._comparisons[name, key] = self._model.comparisons(query.encoding, support)
        return self._comparisons[name, key]

    def _encode(self, keys: Sequence[Support]) -> list[Encoding]:
        """Encode images that are all supports or all auxiliary."""
        loaded = [self._images.get(key) for key in keys]
        images = self._moved(loaded)
        masks = [image.mask for image in loaded if image.mask is not None]
        if not masks:
            return _split(self._model.encode_auxiliary(images), len(keys))
        device = self._model.device
        class_ids = torch.tensor([class_id for _, class_id in keys])  # only the host reads them
        mask = _joined([sent(mask, device) for mask in masks]).long()
        with known_objects(masks):
            return _split(self._model.encode_support(images, mask, class_ids), len(keys))

    def _moved(self, loaded: Sequence[LoadedImage]) -> Tensor:
        """Return normalised images [B,3,H,W] on the device."""
        return normalised(_joined([sent(image, self._model.device) for image, _ in loaded]))


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield ``items`` in parts of ``size``."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


def _split(encoding: Encoding, images: int) -> list[Encoding]:
    """Return the encodings of single images; as copies, so that each is freed without the others."""
    if images == 1:
        return [encoding]
    return [{name: part[i : i + 1].clone() for name, part in encoding.items()} for i in range(images)]
