"""The tool that makes MIANet's table of word vectors."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fewseg.dataset.classes.shared_names import known_names
from fewseg.util.errors import DataError
from fewseg.util.word_vectors import load_word_vectors
from tools.word_vectors import main, read_names

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("background", "dog", "the", "fire_hydrant", "traffic", "light", "Dog")
VECTORS = dict(zip(WORDS, np.random.default_rng(0).standard_normal((7, 300)).astype(np.float32), strict=True))
CLASSES = ("dog", "fire_hydrant", "traffic light")


def write_text(path: Path, *, header: bool, vectors: dict[str, np.ndarray] = VECTORS) -> Path:
    width = len(next(iter(vectors.values())))
    lines = [f"{len(vectors)} {width}"] * header
    lines += [" ".join([word, *(repr(float(x)) for x in vector)]) for word, vector in vectors.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_binary(path: Path, *, newline: bytes, vectors: dict[str, np.ndarray] = VECTORS) -> Path:
    entries = [word.encode() + b" " + vector.tobytes() + newline for word, vector in vectors.items()]
    path.write_bytes(f"{len(vectors)} {len(vectors['dog'])}\n".encode() + b"".join(entries))
    return path


def run(tmp_path: Path, source: Path, classes: tuple[str, ...] = CLASSES) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(classes) + "\n")
    main([str(source), str(names), str(tmp_path / "out" / "table.npy")])


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("form", ["text", "text without header", "binary", "binary with newlines"])
def test_every_form_of_word2vec_file_gives_the_same_table(tmp_path: Path, form: str) -> None:
    path = tmp_path / "words"
    if form.startswith("text"):
        write_text(path, header=form == "text")
    else:
        write_binary(path, newline=b"\n" if "newlines" in form else b"")
    run(tmp_path, path)
    table = load_word_vectors(tmp_path / "out" / "table.npy", CLASSES).numpy()
    mean = (VECTORS["traffic"].astype(np.float64) + VECTORS["light"]) / 2
    expected = [VECTORS["background"], VECTORS["dog"], VECTORS["fire_hydrant"], mean]
    np.testing.assert_allclose(table, np.stack([unit(vector) for vector in expected]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("form", ["text", "fastText", "binary"])
def test_vectors_may_have_any_width(tmp_path: Path, form: str) -> None:
    vectors = {word: vector[:17] for word, vector in VECTORS.items()}
    path = tmp_path / "words"
    if form == "binary":
        write_binary(path, newline=b"\n", vectors=vectors)
    else:
        write_text(path, header=form == "fastText", vectors=vectors)
        path.write_text(path.read_text().replace("\n", " \n" if form == "fastText" else "\n"))
    run(tmp_path, path)
    table = load_word_vectors(tmp_path / "out" / "table.npy", CLASSES).numpy()
    np.testing.assert_allclose(table[1], unit(vectors["dog"]), atol=1e-6)
    assert table.shape == (4, 17)


def refusal(tmp_path: Path, source: Path, classes: tuple[str, ...] = CLASSES) -> str:
    with pytest.raises(DataError) as caught:
        run(tmp_path, source, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_word_names_its_class(tmp_path: Path) -> None:
    source = write_text(tmp_path / "words.txt", header=True)
    message = refusal(tmp_path, source, ("dog", "diningtable"))
    assert "class 2 'diningtable'" in message
    assert str(source) in message
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_serve(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text("dog\ncat\n")
    fasttext = tmp_path / "cc.en.300.bin"
    fasttext.write_bytes(b"\xba\x16\x4f\x2f\x0c\x00\x00\x00")
    cut = tmp_path / "cut"
    cut.write_bytes(write_binary(tmp_path / "whole", newline=b"").read_bytes()[:-10])
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(b"3 300\n"))
    ragged = tmp_path / "ragged"
    ragged.write_text(write_text(tmp_path / "text", header=True).read_text() + "cat 0.5 0.5 \n")
    for source, message in (
        (bare, "its first line holds no word and its numbers"),
        (fasttext, "is a model of fastText; take its vectors as text, the file .vec"),
        (cut, "ends within word 7 of 7"),
        (packed, "gunzip"),
        (tmp_path / "absent", "cannot be read"),
    ):
        assert message in refusal(tmp_path, source)
    assert "ragged:9: the vector of 'cat' has 2 numbers instead of 300" in refusal(tmp_path, ragged, ("cat",))


def test_lists_that_cannot_serve(tmp_path: Path) -> None:
    source = write_text(tmp_path / "words", header=True)
    message = refusal(tmp_path, source, ("dog", "", "traffic light"))
    assert "classes.txt:2: a class without a name" in message
    assert "is empty" in refusal(tmp_path, source, ("",))


@pytest.mark.parametrize("data_set", ["pascal", "coco"])
def test_shipped_lists_follow_the_order_of_the_ids(data_set: str) -> None:
    words = read_names(ROOT / "lists" / data_set / "words.txt")
    names = known_names(data_set)
    assert len(words) == len(names)
    assert (
        sum(word.replace("_", " ") == name for word, name in zip(words, names, strict=True)) > len(names) / 2
    )
