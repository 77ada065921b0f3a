"""Segmenting a user's own images by a model that is adapted to each of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import predict
from fewseg.dataset.reading.mask import read_mask
from fewseg.dataset.reading.transform import Resize
from fewseg.engine.prediction.adapted import AdaptedSegmenter
from fewseg.engine.prediction.predict import Example, Segmenter
from fewseg.model import create_adapter, create_model
from fewseg.model.contract import Prediction
from fewseg.util.errors import ConfigError, UserError

from .test_predict import photos  # noqa: F401 (a fixture)

CPU = torch.device("cpu")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def examples(count: int) -> list[Example]:
    masks = np.zeros((50, 90), np.uint8)
    masks[10:40, 20:60] = 1
    return [Example(picture(50, 90, seed), masks) for seed in range(count)]


class Recording:
    """Stands for an adapter: keeps the episode, and finds the class in the left half."""

    oracle, rounds = False, 1

    def __call__(self, episode):
        self.episode = episode
        logits = torch.zeros(1, 2, *episode.size)
        logits[:, 1, :, : episode.size[1] // 2] = 1
        return Prediction(logits)


def test_every_image_becomes_an_episode_with_the_examples() -> None:
    adapter, resize = Recording(), Resize(65)
    segmenter = AdaptedSegmenter(adapter, CPU, examples(2), resize, [picture(30, 30)], class_id=3)
    mask = segmenter(picture(40, 80, 7))
    assert mask.shape == (40, 80) and mask[:, :38].all() and not mask[:, 44:].any()
    episode = adapter.episode
    assert (episode.ways, episode.shots, episode.class_id.tolist()) == (1, 2, [[3]])
    assert torch.equal(episode.query[0], resize.image(picture(40, 80, 7)))
    assert torch.equal(episode.query_padding[0], resize.padding(40, 80)) and episode.query_padding.any()
    assert torch.equal(episode.support[0, 0, 1], resize.image(examples(2)[1].image))
    assert set(episode.support_mask[0, 0, 1].unique().tolist()) == {0, 1, 255}
    assert episode.auxiliary.shape == (1, 1, 1, 3, 65, 65) and episode.query_mask is None


def test_the_round_before_learning_gives_what_the_model_alone_gives() -> None:
    torch.manual_seed(0)
    narrow = {"backbone": "resnet18", "backbone_options": {"width": 8}, "image_size": 65}
    model = create_model("bam", shot=2, channels=16, **narrow).eval()
    adapter = create_adapter("eftnet", model, rounds=1, choice=0)
    plain, adapted = (
        Segmenter(model, examples(2), Resize(65)),
        AdaptedSegmenter(adapter, CPU, examples(2), Resize(65)),
    )
    assert (plain(picture(40, 80, 7)) != adapted(picture(40, 80, 7))).mean() < 0.01


def test_what_is_not_possible_is_refused() -> None:
    adapter = Recording()
    with pytest.raises(UserError, match="set Data"):
        AdaptedSegmenter(adapter, CPU, examples(1), Resize(65, "native"))
    adapter.oracle = True
    with pytest.raises(UserError, match="truth of the images, which is not known here"):
        AdaptedSegmenter(adapter, CPU, examples(1), Resize(65))


def test_the_script_adapts_where_the_config_says_so(photos, tmp_path, capsys) -> None:  # noqa: F811
    predict.main([*photos, "adapt", "eftnet", "ft_number", "1"])
    assert "the model is adapted to every image by eftnet" in capsys.readouterr().out
    assert {read_mask(path).shape for path in (tmp_path / "found").glob("*_mask.png")} == {(144, 144)}
    with pytest.raises(ConfigError, match=r"Test_Finetune\.adapt: EFTNet cannot adapt HSNet: nothing"):
        plain = (
            photos[: photos.index("--weight")] + photos[photos.index("--support") : photos.index("--opts")]
        )
        predict.main([*plain, "--opts", "arch", "hsnet", "adapt", "eftnet"])
