"""Reading photographs and masks, good and bad."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dataset.mask import check_same_size, read_image, read_mask
from util.errors import DataError


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for suffix in ("png", "jpg"):
        Image.fromarray(pixels).save(tmp_path / f"photo.{suffix}")
    return tmp_path


def palette_mask(path, indices):
    mask = Image.fromarray(indices, "P")
    mask.putpalette(
        [channel for i in range(256) for channel in ((i * 37) % 256, (i * 91) % 256, (i * 11) % 256)]
    )
    mask.save(path)


def test_an_image_is_rgb(photo):
    pixels = np.asarray(Image.open(photo / "photo.png"))
    np.testing.assert_array_equal(read_image(photo / "photo.png"), pixels)
    assert read_image(photo / "photo.jpg").shape == (30, 40, 3)


def test_a_palette_mask_gives_indices_and_a_grey_one_its_values(tmp_path):
    indices = np.array([[0, 1, 20], [255, 7, 0]], np.uint8)
    palette_mask(tmp_path / "palette.png", indices)
    Image.fromarray(indices).save(tmp_path / "grey.png")
    for name in ("palette.png", "grey.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), indices)


@pytest.mark.parametrize("mode", ["P", "L"])
def test_masks_decoded_by_the_short_way_equal_those_of_pillow(tmp_path, mode):
    indices = np.random.default_rng(0).integers(0, 21, (33, 47)).astype(np.uint8).repeat(3, 0)
    for name, options in {"a.png": {}, "b.png": {"optimize": True}}.items():
        Image.fromarray(indices, mode).save(tmp_path / name, **options)
        np.testing.assert_array_equal(read_mask(tmp_path / name), np.asarray(Image.open(tmp_path / name)))


def test_a_bilevel_mask_gives_zero_and_one(tmp_path):
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1").save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [[0, 1], [1, 0]])


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
@pytest.mark.parametrize("kept", [0, 20, 0.5, -4])
def test_a_truncated_image_is_refused_in_one_line(photo, name, kept):
    data = (photo / name).read_bytes()
    (photo / name).write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=f"{name}.*(corrupt|truncated)") as caught:
        read_image(photo / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 20, 60])
def test_a_truncated_mask_is_refused_in_one_line(tmp_path, kept):
    palette_mask(tmp_path / "mask.png", np.random.default_rng(0).integers(0, 20, (30, 40), np.uint8))
    path = tmp_path / "mask.png"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"mask\.png.*(corrupt|truncated)") as caught:
        read_mask(path)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.jpg: the image is missing"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.png: the mask is missing"):
        read_mask(tmp_path / "a.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_a_colour_mask_is_refused(photo):
    with pytest.raises(DataError, match=r"photo\.png.*mode RGB.*palette or grey"):
        read_mask(photo / "photo.png")


def test_sizes_must_agree():
    image, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.uint8)
    with pytest.raises(DataError, match=r"m\.png: the mask is 4x6, but its image i\.jpg is 6x4"):
        check_same_size(image, mask, "i.jpg", "m.png")
    check_same_size(image, mask.T, "i.jpg", "m.png")


@pytest.mark.parametrize("mode", ["I;16", "RGB"])
def test_indices_may_be_stored_wide(tmp_path, mode):
    wanted = np.array([[0, 3, 255], [7, 1, 2]], np.uint8)
    path = tmp_path / "mask.png"
    if mode == "RGB":
        Image.fromarray(np.repeat(wanted[..., None], 3, 2)).save(path)
    else:
        Image.fromarray(wanted.astype(np.uint16)).save(path)
    np.testing.assert_array_equal(read_mask(path), wanted)
    assert read_mask(path).dtype == np.uint8


def test_an_index_beyond_a_byte_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="mode I;16, but one 8-bit class index"):
        read_mask(tmp_path / "mask.png")
