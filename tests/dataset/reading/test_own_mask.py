"""What the values of a user's mask are taken for."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.reading.own_mask import MaskKind, kind_of, read_binary, read_own_mask, read_own_pair
from fewseg.util.errors import DataError


def disc(side=120, radius=40, value=255):
    rows, columns = np.mgrid[:side, :side]
    inside = (rows - side // 2) ** 2 + (columns - side // 2) ** 2 <= radius**2
    return np.where(inside, value, 0).astype(np.uint8)


def soft_masks():
    """Masks of one disc with soft edges, as programs make them."""
    plain = disc()
    noise = np.random.default_rng(0).integers(-6, 7, plain.shape)
    yield "supersampled", cv2.resize(disc(480, 160), (120, 120), interpolation=cv2.INTER_AREA)
    yield "coarsely supersampled", cv2.resize(disc(240, 80), (120, 120), interpolation=cv2.INTER_AREA)
    yield "blurred", cv2.GaussianBlur(plain, (0, 0), 1.5)
    yield "feathered", cv2.GaussianBlur(plain, (0, 0), 9)
    yield "enlarged", cv2.resize(disc(40, 13), (120, 120), interpolation=cv2.INTER_CUBIC)
    yield "from a JPEG", cv2.imdecode(cv2.imencode(".jpg", plain)[1], cv2.IMREAD_GRAYSCALE)
    yield "noisy", np.clip(plain + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("values", [pytest.param(values, id=name) for name, values in soft_masks()])
def test_soft_edges_are_cut_in_the_middle(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "mask.png")
    mask = read_own_mask(tmp_path / "mask.png")
    assert mask.kind is MaskKind.SOFT and mask.classes == (1,)
    np.testing.assert_array_equal(mask.indices, values >= 128)
    assert (mask.indices != disc(value=1)).mean() < 0.05


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((0, 255), MaskKind.ZERO_255),
        ((0, 1), MaskKind.ZERO_ONE),
        ((255,), MaskKind.ZERO_255),
        ((1,), MaskKind.ZERO_ONE),
        ((0, 7, 255), MaskKind.INDICES),
        ((0, 1, 255), MaskKind.INDICES),
        ((0, 1, 5, 120, 130, 181, 255), MaskKind.INDICES),
        (tuple(range(40)), MaskKind.INDICES),
    ],
)
def test_stripes_of_values_are_what_they_are(values, kind):
    stripes = np.array(values, np.uint8).repeat(6)[None].repeat(10, 0)
    assert kind_of(stripes) is kind


def test_many_small_classes_between_much_background_and_void_are_no_soft_edges():
    values = np.zeros((100, 100), np.uint8)
    values[60:] = 255
    for number, class_id in enumerate((3, 17, 60, 90, 140, 150, 170)):
        values[10 : 14 + number, 10 * number : 10 * number + 5] = class_id
    assert kind_of(values) is MaskKind.INDICES


def test_indices_of_a_palette_are_never_grey_values():
    values = dict(soft_masks())["blurred"]
    assert kind_of(values, palette=True) is MaskKind.INDICES


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (disc(radius=3), "only 29 of 14400 pixels"),
        (np.full((60, 60), 255, np.uint8), "nearly all of the image.*exchanged"),
        (np.where(disc(radius=50) > 0, 255, disc()) - (disc(radius=20) > 0) * np.uint8(250), "more.*is void"),
        (disc(), ""),
        (disc(value=9), ""),
    ],
)
def test_doubts_are_told_in_words(tmp_path, values, said):
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "mask.png")
    mask = read_own_mask(tmp_path / "mask.png")
    (class_id,) = mask.classes
    assert re.fullmatch(f".*{said}.*" if said else "", mask.doubt(class_id))


def test_a_pair_is_read_after_its_sizes_agree(tmp_path):
    Image.fromarray(np.zeros((120, 120, 3), np.uint8)).save(tmp_path / "photo.jpg")
    Image.fromarray(disc()).save(tmp_path / "mask.png")
    Image.fromarray(disc(60, 20)).save(tmp_path / "small.png")
    image, mask = read_own_pair(tmp_path / "photo.jpg", tmp_path / "mask.png")
    assert image.shape == (120, 120, 3) and mask.shares(1) == "34.9% object, 0.0% void"
    with pytest.raises(DataError, match=r"small\.png: the mask is 60x60, but its image .* is 120x120"):
        read_own_pair(tmp_path / "photo.jpg", tmp_path / "small.png")


def test_black_and_white_in_a_palette_is_told_by_its_colours(tmp_path):
    for first, colours in enumerate(([0, 0, 0, 255, 255, 255], [255, 255, 255, 0, 0, 0])):
        mask = Image.fromarray(disc(value=1) ^ first, "P")
        mask.putpalette(colours)
        mask.save(tmp_path / "mask.png")
        found = read_own_mask(tmp_path / "mask.png")
        assert found.kind is MaskKind.ZERO_255
        np.testing.assert_array_equal(found.indices, disc(value=1))
        np.testing.assert_array_equal(read_binary(tmp_path / "mask.png"), disc(value=1))


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(disc(value=1), id="0 and 1"),
        pytest.param(disc(), id="0 and 255"),
        pytest.param(disc(value=38), id="a class of a palette decoded to grey"),
        pytest.param(disc()[..., None] * np.array([1, 0, 0], np.uint8), id="red"),
        pytest.param(np.maximum(disc(), disc(radius=41, value=9)), id="a grey seam"),
        pytest.param(np.where(disc(radius=45) > disc(), 255, disc(value=1)).astype(np.uint8), id="void"),
    ],
)
def test_a_mask_of_one_object_is_what_is_bright(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_binary(tmp_path / "mask.png"), disc(value=1))
