"""Word vectors of class names: tables from files, and hashed ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fewseg.util.errors import DataError
from fewseg.util.word_vectors import hashed_vectors, load_word_vectors

NAMES = ("background", "circle", "square", "five pointed star")


def write_table(path: Path, table: np.ndarray) -> Path:
    np.save(path, table)
    return path


def test_hashed_vectors_are_unit_distinct_and_fixed() -> None:
    table = load_word_vectors("hashed", NAMES)
    assert table.shape == (4, 300)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table.norm(dim=1), torch.ones(4))
    assert (table @ table.T - torch.eye(4)).abs().max() < 0.3
    # Checkpoints depend on these numbers: they must never change.
    np.testing.assert_allclose(table[1, :3].numpy(), (-0.0372976, -0.0149077, -0.0127919), atol=1e-6)


def test_a_name_has_its_vector_whatever_stands_beside_it() -> None:
    np.testing.assert_array_equal(hashed_vectors(["circle"])[0], hashed_vectors(NAMES)[1])


def test_background_is_added_where_it_is_missing() -> None:
    assert torch.equal(load_word_vectors("hashed", NAMES), load_word_vectors("hashed", NAMES[1:]))


def test_a_table_is_read_as_it_is(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((4, 300))
    path = write_table(tmp_path / "words.npy", table)
    loaded = load_word_vectors(path, NAMES)
    assert loaded.dtype == torch.float32
    np.testing.assert_array_equal(loaded.numpy(), table.astype(np.float32))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((5, 300)), r"must have 4 rows here, the background and 3 classes.* got \[5, 300\]"),
        (np.zeros((4, 0)), r"got \[4, 0\]"),
        (np.zeros(300), r"got \[300\]"),
        (np.zeros((4, 300), np.int64), "finite floating-point"),
        (np.full((4, 300), np.nan), "finite floating-point"),
    ],
)
def test_tables_of_another_data_set_are_refused(tmp_path: Path, table: np.ndarray, message: str) -> None:
    path = write_table(tmp_path / "words.npy", table)
    with pytest.raises(DataError, match=message) as failure:
        load_word_vectors(path, NAMES)
    assert str(path) in str(failure.value)
    assert "\n" not in str(failure.value)


def test_tables_of_any_width_are_concatenated(tmp_path: Path) -> None:
    narrow, wide = (np.random.default_rng(width).random((4, width), np.float32) for width in (5, 40))
    paths = [str(write_table(tmp_path / f"{table.shape[1]}.npy", table)) for table in (narrow, wide)]
    joined = load_word_vectors([*paths, "hashed"], NAMES).numpy()
    np.testing.assert_array_equal(joined, np.concatenate([narrow, wide, hashed_vectors(NAMES)], 1))


def test_missing_broken_and_pickled_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such table.*embeddings: hashed"):
        load_word_vectors(tmp_path / "none.npy", NAMES)
    (tmp_path / "text.npy").write_text("circle 0.1 0.2")
    np.save(tmp_path / "pickled.npy", np.array([{"circle": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "archive.npz", a=np.zeros((4, 300)))
    for name in ("text.npy", "pickled.npy", "empty.npy", "archive.npz"):
        with pytest.raises(DataError, match="table"):
            load_word_vectors(tmp_path / name, NAMES)


def test_published_tables_fit_their_data_sets(shared: Path) -> None:
    for data_set, rows in (("pascal", 21), ("coco", 81)):
        folder = shared / "embeddings"
        names = (folder / f"word2vec_{data_set}.txt").read_text().splitlines()
        table = load_word_vectors(folder / f"word2vec_{data_set}.npy", names)
        assert table.shape == (rows, 300)
