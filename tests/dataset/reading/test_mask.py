"""Reading photographs and masks, good and bad."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.reading.mask import check_same_size, label_counts, read_image, read_mask, read_pair
from fewseg.util.errors import DataError


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
        assert read_mask(tmp_path / name).flags.writeable  # torch warns of others


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


def test_a_truncated_jpeg_is_refused_where_opencv_fills_it_with_grey(photo, monkeypatch):
    (photo / "photo.jpg").write_bytes((photo / "photo.jpg").read_bytes()[:-100])
    monkeypatch.setattr("cv2.imdecode", lambda data, flags: np.full((30, 40, 3), 128, np.uint8))
    with pytest.raises(DataError, match=r"photo\.jpg.*truncated"):
        read_image(photo / "photo.jpg")


@pytest.mark.parametrize("name", ["mask.png", "mask.bmp", "mask.tif", "mask.gif"])
@pytest.mark.parametrize("kept", [0, 20, 60, 0.5])
def test_a_truncated_mask_is_refused_in_one_line(tmp_path, name, kept):
    path = tmp_path / name
    palette_mask(path, np.random.default_rng(0).integers(0, 20, (30, 40), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=f"{name}.*(corrupt|truncated)") as caught:
        read_mask(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_mask_is_noticed(tmp_path):
    path = tmp_path / "mask.png"
    palette_mask(path, np.random.default_rng(0).integers(0, 20, (30, 40), np.uint8))
    data = path.read_bytes()
    for position in range(len(data) - 200, len(data) - 12, 7):  # among the pixels
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        with pytest.raises(DataError, match=r"mask\.png.*corrupt"):
            read_mask(path)


def png(width: int, height: int, stream: bytes) -> bytes:
    """Return a grey PNG of a size whose compressed pixels are ``stream``, which need not fit the size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def peak_of(action) -> int:
    """Return the most bytes that Python and NumPy held while ``action`` ran."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_pixels_beyond_the_size_in_the_header_are_never_unpacked(tmp_path):
    stream = zlib.compress(bytes(100_000_000), 1)
    (tmp_path / "mask.png").write_bytes(png(144, 144, stream))
    assert peak_of(lambda: read_mask(tmp_path / "mask.png")) < 10_000_000 + 2 * len(stream)


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_an_image_of_too_many_pixels_is_refused_in_one_line(tmp_path, read, side):
    path = tmp_path / "large.png"
    path.write_bytes(png(side, side, zlib.compress(b"")))
    with pytest.raises(DataError, match=r"large\.png.*more than 178 million pixels; scale it down"):
        read(path)


def test_sizes_are_compared_before_anything_is_decoded(photo):
    (photo / "mask.png").write_bytes(png(9000, 9000, zlib.compress(bytes(9000 * 9001), 1)))

    def refused():
        with pytest.raises(DataError, match=r"the mask is 9000x9000, but its image .* is 40x30"):
            read_pair(photo / "photo.png", photo / "mask.png")

    assert peak_of(refused) < 5_000_000


def test_a_photograph_that_lies_on_its_side_fits_the_mask_of_the_upright_one(tmp_path):
    side = Image.fromarray(np.zeros((30, 40, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    side.save(tmp_path / "photo.jpg", exif=turned)
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "upright.png")
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "side.png")
    image, mask = read_pair(tmp_path / "photo.jpg", tmp_path / "upright.png")
    assert image.shape == (40, 30, 3) and mask.shape == (40, 30)
    with pytest.raises(DataError, match=r"the mask is 40x30, but its image .* is 30x40"):
        read_pair(tmp_path / "photo.jpg", tmp_path / "side.png")


def test_a_jpeg_is_no_mask_whatever_its_name(photo):
    (photo / "renamed.png").write_bytes((photo / "photo.jpg").read_bytes())
    for name in ("photo.jpg", "renamed.png"):
        with pytest.raises(
            DataError, match=f"{name}: a JPEG cannot be a mask.*lossy.*export the mask as PNG"
        ):
            read_mask(photo / name)


def test_counting_in_blocks_counts_every_pixel():
    mask = np.arange(256, dtype=np.uint8).repeat(1 << 17).reshape(4096, -1)
    np.testing.assert_array_equal(label_counts(mask), np.full(256, 1 << 17))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.jpg: the image is missing"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.png: the mask is missing"):
        read_mask(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"cannot be read \(not a file\)"):
        read_image(tmp_path)


def test_a_colour_mask_is_refused(photo):
    with pytest.raises(DataError, match=r"photo\.png.*mode RGB.*palette or grey"):
        read_mask(photo / "photo.png")


def test_sizes_must_agree():
    image, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.uint8)
    with pytest.raises(DataError, match=r"m\.png: the mask is 4x6, but its image i\.jpg is 6x4"):
        check_same_size(image, mask, "i.jpg", "m.png")
    check_same_size(image, mask.T, "i.jpg", "m.png")


@pytest.mark.parametrize("mode", ["I;16", "RGB", "RGBA", "LA"])
def test_indices_may_be_stored_wide(tmp_path, mode):
    wanted = np.array([[0, 3, 255], [7, 1, 2]], np.uint8)
    path = tmp_path / "mask.png"
    grey = Image.fromarray(wanted)
    (Image.fromarray(wanted.astype(np.uint16)) if mode == "I;16" else grey.convert(mode)).save(path)
    np.testing.assert_array_equal(read_mask(path), wanted)
    assert read_mask(path).dtype == np.uint8


def test_an_index_beyond_a_byte_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="mode I;16, but one 8-bit class index"):
        read_mask(tmp_path / "mask.png")


def test_a_transparent_mask_is_refused(tmp_path):
    mask = Image.fromarray(np.full((4, 6), 255, np.uint8)).convert("LA")
    mask.putpixel((0, 0), (255, 0))
    mask.save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mode LA.*without transparency"):
        read_mask(tmp_path / "mask.png")
