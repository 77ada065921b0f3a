"""The images of a test in the order of their first use, read beside the network's work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from fewseg.dataset.loading.batches import as_loaded
from fewseg.dataset.loading.evaluation import EpisodeSet, ImageKey, LoadedImage, PlannedImages
from fewseg.engine.evaluation.prefetch import prefetch
from fewseg.engine.setup.interrupt import Check, leave_signals_to_run, nothing
from fewseg.engine.setup.loader import Loader


class ImageStream:
    """Hands out the images of a test; each is read ahead for its first use.

    Args:
        episodes: reads the images.
        order: all images in the order of their first use.
        workers: processes that read; 0: a thread reads, which is enough for a CPU's network and takes none of
            its cores for long.
        compact: read bytes where that is possible, see ``PlannedImages``.
        check: called regularly while waiting for an image; may raise to stop.
    """

    def __init__(
        self,
        episodes: EpisodeSet,
        order: Sequence[ImageKey],
        workers: int = 0,
        *,
        compact: bool = False,
        check: Check = nothing,
    ) -> None:
        self._images = PlannedImages(episodes, order, compact)
        self._arriving = iter(zip(order, self._read(workers, check), strict=True))
        self._waiting: dict[ImageKey, LoadedImage] = {}
        self._left = set(order)

    def get(self, key: ImageKey) -> LoadedImage:
        """Return an image; if it is not its first use, it is read again now."""
        if key not in self._left:
            return self._images.load(key)
        while key not in self._waiting:
            arrived, image = next(self._arriving)
            self._waiting[arrived] = image
        self._left.discard(key)
        return self._waiting.pop(key)

    def _read(self, workers: int, check: Check) -> Iterator[LoadedImage]:
        images = self._images
        if not workers:
            return prefetch((partial(images.__getitem__, i) for i in range(len(images))), check=check)
        loader = Loader(
            images,
            collate_fn=as_loaded,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=leave_signals_to_run,
            pin_memory=torch.cuda.is_available(),
        )
        return loader.batches(check)
