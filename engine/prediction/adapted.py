"""Segmentation of a user's own images by a model that is adapted to each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fewseg.dataset.reading.transform import Resize
from fewseg.engine.prediction.predict import Example
from fewseg.engine.reports.panels import label_map
from fewseg.engine.setup.build import Adapter
from fewseg.model.contract import Episode
from fewseg.model.waiting import sent
from fewseg.util.errors import UserError


class AdaptedSegmenter:
    """Segments one class, given by examples, in any number of images, adapting the model to each.

    Args:
        adapter: the model on its device, in its adaptation.
        device: the device of the model.
        examples: the supports, as many as the model's number of shots.
        resize: how images are resized for the network.
        auxiliary: further images that show the class, RGB uint8 [H,W,3], for a model that can use them.
        class_id: id of the class, for a model that reads class names.

    Raises:
        UserError: the adaptation needs a truth that nobody knows, or the images keep their different sizes.
    """

    def __init__(
        self,
        adapter: Adapter,
        device: torch.device,
        examples: Sequence[Example],
        resize: Resize,
        auxiliary: Sequence[np.ndarray] = (),
        class_id: int = 0,
    ) -> None:
        if adapter.oracle:
            raise UserError(
                "Test_Finetune.adapt_options: the adaptation would look at the truth of the images, which "
                "is not known here; leave discrimination_mask out"
            )
        if resize.rule == "native":
            raise UserError(
                "Test_Finetune.adapt: needs images of one size, and the protocol leaves them at their own; "
                "set Data.protocol_options.resize letterbox"
            )
        self.adapter, self.device, self.resize = adapter, device, resize
        masks = np.stack([resize.label(example.mask) for example in examples])
        further = [resize.image(image) for image in auxiliary]
        images = torch.stack([resize.image(example.image) for example in examples])
        self._support = sent(images[None, None], device)
        self._support_mask = sent(torch.from_numpy(masks).long()[None, None], device)
        self._class_id = torch.tensor([[class_id]])  # which only the host reads
        self._auxiliary = sent(torch.stack(further)[None, None], device) if further else None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Segment ``image`` (RGB uint8 [H,W,3]): 1 for the class, 0 elsewhere, uint8 [H,W]."""
        height, width = image.shape[:2]
        episode = Episode(
            query=sent(self.resize.image(image)[None], self.device),
            support=self._support,
            support_mask=self._support_mask,
            class_id=self._class_id,
            query_padding=sent(self.resize.padding(height, width)[None], self.device),
            auxiliary=self._auxiliary,
        )
        prediction = self.adapter(episode)
        return label_map(prediction.logits, self.resize, height, width)
