"""The training chains of HSNet, PANet and MLC."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fewseg.dataset.reading.transform import MEAN, STD, PlainTransform, Resize


def gradient(height: int = 30, width: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red is its column and whose green is its row, and a mask of its right half."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 7
    return image, mask


def drawn(transform: PlainTransform, seeds: int = 30) -> list[tuple[torch.Tensor, np.ndarray]]:
    image, mask = gradient()
    results = [transform(image, [mask], random.Random(seed)) for seed in range(seeds)]
    return [(out, labels[0]) for out, labels in results]


def test_hsnets_chain_is_the_stretched_image_and_draws_nothing() -> None:
    image, mask = gradient()
    rng = random.Random(0)
    before = rng.getstate()
    out, (label,) = PlainTransform(24)(image, [mask], rng)
    assert torch.equal(out, Resize(24, "stretch").image(image)) and rng.getstate() == before
    assert np.array_equal(label, Resize(24, "stretch").label(mask)) and set(np.unique(label)) == {0, 7}


def test_panets_chain_flips_half_of_the_images_with_their_masks() -> None:
    plain, plain_label = drawn(PlainTransform(24), 1)[0]
    flipped = 0
    for out, label in drawn(PlainTransform(24, flips=True), 60):
        is_flipped = not torch.equal(out, plain)
        assert torch.equal(out.flip(-1) if is_flipped else out, plain)
        assert np.array_equal(label[:, ::-1] if is_flipped else label, plain_label)
        flipped += is_flipped
    assert 15 < flipped < 45


class Told(random.Random):
    """Gives what it is told to, and remembers the bounds that it was asked with."""

    def __init__(self, *values: int) -> None:
        super().__init__(0)
        self.values, self.bounds = list(values), []

    def random(self) -> float:
        return 0.5

    def randint(self, a: int, b: int) -> int:
        self.bounds.append((a, b))
        return self.values.pop(0)


def test_mlcs_windows_lie_anywhere_on_the_image_and_half_a_draw_flips_nothing() -> None:
    image, mask = gradient()
    for top, left in ((0, 0), (10, 30), (3, 7)):
        rng = Told(top, left)
        out, (label,) = PlainTransform(20, crops=True, flips=True)(image, [mask], rng)
        assert rng.bounds == [(0, 10), (0, 30)]
        wanted = (image[top : top + 20, left : left + 20] - np.array(MEAN)) / np.array(STD)
        np.testing.assert_allclose(out.permute(1, 2, 0), wanted, atol=1e-5)
        np.testing.assert_array_equal(label, mask[top : top + 20, left : left + 20])
    rng = Told(0, 3)
    PlainTransform(40, crops=True)(image, [mask], rng)
    assert rng.bounds == [(0, 0), (0, 10)]


def test_mlcs_chain_cuts_image_and_mask_at_the_same_place() -> None:
    columns = set()
    for out, label in drawn(PlainTransform(20, crops=True)):
        red = (out[0].numpy() * STD[0] + MEAN[0]).round()
        green = (out[1].numpy() * STD[1] + MEAN[1]).round()
        assert (np.diff(red, axis=1) == 1).all() and (np.diff(green, axis=0) == 1).all()
        assert np.array_equal(label, np.where(red >= 25, 7, 0))
        columns.add(int(red[0, 0]))
    assert len(columns) > 10 and columns <= set(range(31))


def test_mlcs_chain_pads_what_is_smaller_to_the_right_and_below() -> None:
    image, mask = gradient()
    out, (label,) = PlainTransform(40, crops=True)(image, [mask], random.Random(1))
    assert (label[30:] == 255).all() and set(np.unique(label[:30])) == {0, 7}
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(out[:, 30:], black[:, None, None].expand(3, 10, 40))


def test_the_result_can_be_written_in_place() -> None:
    image, mask = gradient()
    place = torch.empty(3, 24, 24)
    out, _ = PlainTransform(24, flips=True)(image, [mask], random.Random(2), out=place)
    assert out is place
    assert out.mean().item() == pytest.approx(
        PlainTransform(24)(image, [mask], random.Random(0))[0].mean().item()
    )
