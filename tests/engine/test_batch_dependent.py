"""Learners whose encodings depend on their batch see the supports of an episode together, everywhere."""

from __future__ import annotations

import numpy as np
import torch

from fewseg.dataset.reading.transform import Resize
from fewseg.engine.prediction.predict import Example, Segmenter
from fewseg.model import create_model
from fewseg.model.contract import Episode


def test_segmenter_sees_all_examples_at_once() -> None:
    torch.manual_seed(0)
    model = create_model("fss1000", backbone="resnet18", shot=3, backbone_options={"width": 8}).eval()
    model.meta.relation.climb[-1][-1].bias.data.fill_(0.3)  # else nothing is foreground
    drawn = np.random.default_rng(0)
    images = [drawn.integers(0, 256, (65, 65, 3), dtype=np.uint8) for _ in range(4)]
    masks = [(drawn.random((65, 65)) < 0.4).astype(np.uint8) for _ in range(3)]
    resize = Resize(65, "stretch")
    tensors = torch.stack([resize.image(image) for image in images])
    episode = Episode(
        tensors[3:],
        tensors[None, None, :3],
        torch.from_numpy(np.stack(masks)).long()[None, None],
        torch.zeros(1, 1, dtype=torch.int64),
    )
    with torch.no_grad():
        wanted = model(episode).logits.argmax(1)[0].numpy()
    examples = [Example(image, mask) for image, mask in zip(images[:3], masks, strict=True)]
    found = Segmenter(model, examples, resize)(images[3])
    assert np.array_equal(found, wanted)
    assert 0 < wanted.mean() < 1
