"""The transforms against the recorded ones, and what they promise besides."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.dataset.reading.crop import draw_crop
from fewseg.dataset.reading.mask import read_image, read_mask
from fewseg.dataset.reading.transform import (
    MEAN,
    STD,
    Buffer,
    Resize,
    TrainTransform,
    blur,
    class_table,
    fill_around,
    look_up,
    normalise,
    normalised,
    relabel,
    rotate,
    scale,
    square_label,
)
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close


class Replay(random.Random):
    """Gives back recorded draws and checks the bounds that they are asked with."""

    def __init__(self, calls):
        super().__init__(0)
        self.calls = [tuple(call) for call in calls]

    def random(self):
        kind, value = self.calls.pop(0)
        assert kind == "random"
        return value

    def randint(self, a, b):
        kind, low, high, value = self.calls.pop(0)
        assert (kind, low, high) == ("randint", a, b)
        return value


@pytest.fixture
def recorded(pictures):
    """Load image and labels by number, and the recorded operations."""
    recipe = load_case("data", "val_transform")[1].meta["recipe"]

    def load(number):
        image = read_image(pictures / "images" / f"{number:02}.png")
        classes = read_mask(pictures / "labels" / f"{number:02}.png")
        label = class_table([recipe[number]["table"][1]])[classes]
        second = np.where(classes == 255, 255, np.minimum(classes, 2)).astype(np.uint8)
        return image, label, second

    _, case = load_case("data", "train_ops")
    return load, {op["name"]: op for op in case.meta["ops"]}, case.arrays


def assert_equal(arrays, name, image, labels):
    assert_close(np.ascontiguousarray(image[::2, ::2]), arrays[f"{name}_image"], 1e-4, 0)
    for label, key in zip(labels, ("label", "label2"), strict=True):
        assert_close(np.ascontiguousarray(label), arrays[f"{name}_{key}"], 0, 0)


@pytest.mark.parity
def test_single_operations_equal_the_recorded_ones(recorded):
    load, operations, arrays = recorded
    near, linear = cv2.INTER_NEAREST, cv2.INTER_LINEAR
    for name in ("scale_up", "scale_down"):
        image, *labels = load(operations[name]["image_index"])
        factor = 0.9 + 0.2 * operations[name]["random_calls"][0][1]
        found = scale(image.astype(np.float32), factor, linear)
        assert_equal(arrays, name, found, [scale(label, factor, near) for label in labels])
    image, *labels = load(operations["blur"]["image_index"])
    assert_equal(arrays, "blur", blur(image.astype(np.float32)), labels)
    image, *labels = load(operations["flip"]["image_index"])
    assert_equal(arrays, "flip", image[:, ::-1], [label[:, ::-1] for label in labels])


@pytest.mark.parity
@pytest.mark.skipif(
    int(cv2.__version__.split(".")[0]) < 5,
    reason="recorded with OpenCV 5; before, it rounded a warp's coordinates to 1/32 of a pixel",
)
def test_rotation_equals_the_recorded_one(recorded):
    load, operations, arrays = recorded
    image, *labels = load(operations["rotate"]["image_index"])
    angle = -10 + 20 * operations["rotate"]["random_calls"][1][1]
    found = rotate(image.astype(np.float32), angle, cv2.INTER_LINEAR, MEAN)
    turned = [rotate(label, angle, cv2.INTER_NEAREST, 255) for label in labels]
    assert_equal(arrays, "rotate", found, turned)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["crop_pad", "crop_inside"])
def test_crops_equal_the_recorded_ones_draw_by_draw(recorded, name):
    load, operations, arrays = recorded
    operation = operations[name]
    image, *labels = load(operation["image_index"])
    calls = Replay(operation["random_calls"])
    crop = draw_crop(labels[0], operation["output_hw"][0], 1, calls)
    assert not calls.calls
    rows, columns, to_rows, to_columns = crop.window(*labels[0].shape)
    found = np.empty((crop.size, crop.size, 3), np.float32)
    found[:] = MEAN
    found[to_rows, to_columns] = image[rows, columns]
    assert_equal(arrays, name, found, [crop.mask(label) for label in labels])


def plain_chain(image, label, size, rng):
    """The chain one step after the other, in float32, on the whole image."""
    image = image.astype(np.float32)
    factor = 0.5 + 1.5 * rng.random()
    image, label = scale(image, factor, cv2.INTER_LINEAR), scale(label, factor, cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        angle = -10 + 20 * rng.random()
        image = rotate(image, angle, cv2.INTER_LINEAR, MEAN)
        label = rotate(label, angle, cv2.INTER_NEAREST, 255)
    if rng.random() < 0.5:
        image = blur(image)
    if rng.random() < 0.5:
        image, label = cv2.flip(image, 1), cv2.flip(label, 1)
    height, width = (max(size - side, 0) for side in label.shape)
    border = (height // 2, height - height // 2, width // 2, width - width // 2)
    image = cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT, value=MEAN)
    label = cv2.copyMakeBorder(label, *border, cv2.BORDER_CONSTANT, value=255)
    for _ in range(32):
        top, left = rng.randint(0, label.shape[0] - size), rng.randint(0, label.shape[1] - size)
        part = label[top : top + size, left : left + size]
        if (part == 1).sum() >= 0.85 * (label == 1).sum():
            break
    image = image[top : top + size, left : left + size]
    return (image - np.float32(MEAN)) / np.float32(STD), part


@pytest.mark.parametrize("seed", range(24))
def test_the_fused_chain_equals_the_plain_one(seed):
    draw = np.random.default_rng(seed)
    height, width = draw.integers(40, 130, 2)
    image = cv2.GaussianBlur(draw.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 2)
    label = np.zeros((height, width), np.uint8)
    label[5 : height // 2, 8 : width // 2] = 1
    label[:, -3:] = 255
    want_image, want_label = plain_chain(image, label, 81, random.Random(seed))
    found, (mask, second) = TrainTransform(81, scale=(0.5, 2.0))(image, [label, label], random.Random(seed))
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), want_image, rtol=0, atol=5e-6)
    np.testing.assert_array_equal(mask, want_label)
    np.testing.assert_array_equal(second, want_label)


@pytest.mark.parametrize(("shown", "draws"), [((20, 20), 32), ((4, 4), 1), ((0, 0), 1)])
def test_a_crop_is_drawn_again_31_times_where_it_keeps_too_little(shown, draws):
    """Of 20 x 20 pixels, a window of 8 x 8 never keeps 85 %; of 4 x 4 in its corner and of none, all."""
    mask = np.zeros((20, 20), np.uint8)
    mask[: shown[0], : shown[1]] = 9
    calls = Replay([("randint", 0, 12, value) for value in [0] * 62 + [5, 7]])
    crop = draw_crop(mask, 8, 9, calls)
    assert len(calls.calls) == 2 * (32 - draws)
    assert (crop.top, crop.start) == ((5, 7) if draws == 32 else (0, 0))


def test_a_crop_may_lose_15_in_100_pixels_and_no_more():
    mask = np.zeros((20, 20), np.uint8)
    mask[0, :20] = 1
    calls = Replay([("randint", 0, 3, 0), ("randint", 0, 3, 3), ("randint", 0, 3, 1), ("randint", 0, 3, 0)])
    crop = draw_crop(mask, 17, 1, calls)  # 17 of 20 pixels are enough
    assert (crop.top, crop.start) == (0, 3) and len(calls.calls) == 2


def test_half_a_draw_neither_turns_nor_blurs_nor_flips_and_scales_by_the_middle():
    draw = np.random.default_rng(0)
    image, mask = draw.integers(0, 256, (24, 30, 3), np.uint8), draw.integers(0, 3, (24, 30), np.uint8)
    calls = [*[("random", 0.5)] * 4, ("randint", 0, 4, 2), ("randint", 0, 10, 9)]
    out = torch.empty(3, 20, 20)
    found, (label,) = TrainTransform(20)(image, [np.minimum(mask, 0)], Replay(calls), out=out)
    assert found is out and (label == 0).all()
    wanted = (image[2:22, 9:29] - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(out.permute(1, 2, 0), wanted, atol=1e-5)


def test_the_published_ranges_of_scale_and_angle_are_the_default():
    assert (TrainTransform(9).scale, TrainTransform(9).rotate) == ((0.9, 1.1), (-10.0, 10.0))
    image = np.random.default_rng(1).integers(0, 256, (30, 34, 3), np.uint8)
    mask = np.zeros((30, 34), np.uint8)
    mask[4:20, 6:30] = 1
    for low_scale, low_angle in ((0.0, 0.0), (0.75, 0.75)):
        calls = [("random", low_scale), ("random", 0.0), ("random", low_angle), *[("random", 0.9)] * 2]
        out, (label,) = TrainTransform(48)(image, [mask], Replay([*calls, *[("randint", 0, 0, 0)] * 2]))
        factor, angle = 0.9 + 0.2 * low_scale, -10 + 20 * low_angle
        turned = rotate(scale(mask, factor, cv2.INTER_NEAREST), angle, cv2.INTER_NEAREST, 255)
        above, left = (48 - turned.shape[0]) // 2, (48 - turned.shape[1]) // 2
        np.testing.assert_array_equal(label[above:, left:][: turned.shape[0], : turned.shape[1]], turned)
        assert (label == 1).sum() == (turned == 1).sum() and out.shape == (3, 48, 48)


def test_the_crop_keeps_the_label_1_of_the_first_mask_unless_told_another():
    image, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    mask[:4, :4], mask[-4:, -4:] = 1, 2
    for keep, options in ((1, {}), (1, {"keep": 1}), (2, {"keep": 2})):
        for seed in range(8):
            transform = TrainTransform(39, scale=(1.0, 1.0), rotate=(0.0, 0.0))
            _, (label, _) = transform(image, [mask, mask * 0], random.Random(seed), **options)
            assert (label == keep).sum() >= 0.85 * 16


def test_intermediate_images_share_the_memory_of_their_buffer():
    image = np.random.default_rng(2).random((20, 31, 3), np.float32)
    for change in (
        lambda out: scale(image, 1.3, cv2.INTER_LINEAR, out),
        lambda out: rotate(image, 7, cv2.INTER_LINEAR, MEAN, out),
        lambda out: blur(image, out),
    ):
        buffer = Buffer()
        memory = buffer.array((60, 60, 3))
        np.testing.assert_array_equal(change(buffer), change(None))
        assert np.shares_memory(change(buffer), memory)
        assert np.shares_memory(buffer.array((60, 180)), memory)
        assert not np.shares_memory(buffer.array((60, 181)), memory)
    assert TrainTransform(9) == TrainTransform(9) and "Buffer" not in repr(TrainTransform(9))


@pytest.mark.parity
def test_validation_equals_the_recorded_outputs(pictures):
    _, case = load_case("data", "val_transform")
    arrays = case.arrays
    for i, size in enumerate(case.meta["content_size_hw_after_resize"]):
        image, mask = read_image(pictures / f"images/{i:02}.png"), read_mask(pictures / f"labels/{i:02}.png")
        resize = Resize(73)
        assert list(resize.content(*mask.shape)) == size
        assert_close(resize.image(image), arrays["resize_image"][i], 2e-6, 0)
        assert_close(resize.label(mask), arrays["resize_label"][i], 0, 0)
        second = np.where(mask == 255, 255, mask // 2).astype(np.uint8)
        assert_close(resize.label(second), arrays["resize_label2"][i], 0, 0)
        padding = resize.padding(*mask.shape)
        assert (~padding).sum() == size[0] * size[1] and not padding[: size[0], : size[1]].any()
    for row, i in enumerate((4, 5)):
        image, mask = read_image(pictures / f"images/{i:02}.png"), read_mask(pictures / f"labels/{i:02}.png")
        shrink = Resize(73, "shrink")
        assert_close(shrink.image(image), arrays["test_resize_image"][row], 2e-6, 0)
        assert_close(shrink.label(mask), arrays["test_resize_label"][row], 0, 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("resize", "shape", "whole"),
    [
        (Resize(73, "stretch", antialias=True), (90, 61), True),
        (Resize(73, "letterbox", antialias=True), (90, 61), True),
        (Resize(73, "native"), (41, 60), True),
        (Resize(73, "shrink"), (41, 60), True),
        (Resize(73, "shrink"), (41, 90), False),
        (Resize(73, "letterbox"), (41, 90), False),
        (Resize(73, "stretch"), (90, 61), False),
    ],
    ids=str,
)
def test_bytes_are_normalised_to_the_same_digits(resize, shape, whole, seed):
    """OpenCV interpolates to fractions, which bytes cannot hold, so those images stay as they are."""
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    compact, expected = resize.compact(image), resize.image(image)
    assert compact.dtype == (torch.uint8 if whole else torch.float32)
    assert torch.equal(normalised(compact), expected)
    assert torch.equal(normalised(torch.stack([compact, compact]))[1], expected)


def test_every_grey_level_is_normalised_to_the_same_digits():
    image = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, 2)
    resize = Resize(8, "native")
    assert torch.equal(normalised(resize.compact(image)), resize.image(image))
    assert normalised(resize.image(image)).unique().numel() == 3 * 256


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_normalises_to_the_same_digits():
    image = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, 2)
    resize = Resize(8, "native")
    assert torch.equal(normalised(resize.compact(image).to("cuda")).cpu(), resize.image(image))


def test_the_other_rules_keep_their_word():
    image, mask = np.zeros((20, 40, 3), np.uint8), np.ones((20, 40), np.uint8)
    assert Resize(64, "shrink").content(20, 40) == (20, 40)
    assert Resize(64, "shrink").image(image).shape == (3, 64, 64)
    assert (Resize(64, "stretch").label(mask) == 1).all() and not Resize(64, "stretch").padding(20, 40).any()
    assert Resize(64, "native").image(image).shape == (3, 20, 40)
    assert Resize(64, "native").label(mask).shape == (20, 40)


def test_an_image_of_just_the_size_keeps_it_where_larger_ones_shrink():
    for height, width in ((20, 64), (64, 13)):
        assert Resize(64, "shrink").content(height, width) == (height, width)
        assert Resize(64, "native").content(height, width) == (height, width)
        assert Resize(64).content(height, width) == (height // 8 * 8, width // 8 * 8)
    assert Resize(64, "shrink").content(20, 65) == Resize(64).content(20, 65) == (16, 64)
    assert Resize(64).rule == "letterbox" and Resize(60).content(31, 60) == (24, 56)


def test_a_sliver_of_an_image_keeps_at_least_eight_pixels():
    assert Resize(64).content(5, 400) == (8, 64)


def test_a_label_goes_top_left_into_a_square_of_void():
    found = square_label(np.ones((2, 3), np.uint8))
    assert found.tolist() == [[1, 1, 1], [1, 1, 1], [255, 255, 255]]


def test_tables_map_ways_and_keep_void():
    found = look_up(np.array([[0, 3, 7, 255]], np.uint8), class_table([7, 3]))
    assert found.dtype == torch.int64 and found.tolist() == [[0, 2, 1, 255]]


@pytest.mark.parametrize(("ids", "length"), [((), 256), ((7, 3), 256), ((254,), 256), ((4, 300), 301)])
def test_masks_of_both_types_go_through_tables_of_any_length(ids, length):
    table = class_table(ids)
    assert len(table) == length and table.dtype == np.uint8
    for largest, kind in ((255, np.uint8), (400, np.uint16)):
        mask = np.arange(largest + 1).astype(kind)[None]
        wanted = [255 if i == 255 else 1 + ids.index(i) if i in ids else 0 for i in range(largest + 1)]
        assert relabel(mask, table).tolist() == [wanted]
    assert look_up(np.array([[300, 301, 65535]], np.uint16), table).tolist() == [[2 * (300 in ids), 0, 0]]


def test_padding_is_normalised_like_the_image():
    out = np.empty((3, 5, 6), np.float32)
    fill_around(out, slice(1, 3), slice(2, 4), (0, 0, 0))
    normalise(np.zeros((2, 2, 3), np.float32), out[:, 1:3, 2:4])
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))
    np.testing.assert_allclose(out[:, 0, 0], -np.array(MEAN) / STD, rtol=1e-6)


def test_antialiased_resizing_is_pillow_s():
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    pillow = np.array(Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR))
    smooth, plain = (Resize(20, "stretch", antialias).image(image) for antialias in (True, False))
    mean, std = (
        torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    wanted = (torch.from_numpy(pillow).permute(2, 0, 1) / 255 - mean) / std
    torch.testing.assert_close(smooth, wanted, atol=1e-5, rtol=0)
    assert smooth.std() < 0.7 * plain.std()  # noise is averaged, not sampled
    assert torch.equal(Resize(60, "native", True).image(image), Resize(60, "native").image(image))
