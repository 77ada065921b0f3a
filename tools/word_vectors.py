"""Make MIANet's table of word vectors from a file of word2vec or fastText and a list of class names.

Vectors of any width will do; of fastText, take the text (``.vec``). The list holds one class per line,
behind its id or in the order of the ids. Words of a name are separated by spaces and averaged;
``fire_hydrant`` is one entry of word2vec's file. Where the file does not know a name, write words that it
knows: ``table`` for ``diningtable``. ``lists/pascal`` and ``lists/coco`` hold such lists.

    python tools/word_vectors.py GoogleNews-vectors-negative300.bin lists/pascal/words.txt \\
        data/word_vectors/pascal.npy
"""

from __future__ import annotations

import io
import mmap
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import numpy as np

from fewseg.dataset.classes.own_names import parse_class_names
from fewseg.engine.setup.script import run_script
from fewseg.util.command_line import command_line
from fewseg.util.errors import DataError
from fewseg.util.files import write_atomically
from fewseg.util.word_vectors import unit_rows

_UNFIT = {b"\x1f\x8b": "is compressed; unpack it first with gunzip"}
_UNFIT |= {b"\xba\x16\x4f\x2f": "is a model of fastText; take its vectors as text, the file .vec beside it"}
"""First bytes of files that cannot be read -> what to do."""
_LONGEST_LINE = 1 << 16


def make_table(names: Sequence[str], vectors: dict[str, np.ndarray], source: Path) -> np.ndarray:
    """Return the unit vectors of ``names``, float32 [names, width].

    Raises:
        DataError: names the first class with a word that ``vectors`` lacks.
    """
    rows = []
    for row, name in enumerate(names):
        for word in name.split():
            if word not in vectors:
                raise DataError(
                    f"class {row} {name!r}: {source} has no word {word!r}; "
                    "write the class with words that it has, separated by spaces"
                )
        rows.append(np.mean([vectors[word] for word in name.split()], axis=0, dtype=np.float64))
    return unit_rows(np.stack(rows))


def read_names(path: Path) -> list[str]:
    """Return the class names of a list, the background in front."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as failure:
        raise DataError(f"{path}: the list of class names cannot be read") from failure
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"{path}: the list of class names is empty")
    if "" in names:
        raise DataError(f"{path}:{names.index('') + 1}: a class without a name; every line is one class")
    return list(parse_class_names(names, path))


def read_vectors(path: Path, words: Collection[str]) -> dict[str, np.ndarray]:
    """Return the vectors of those ``words`` that a word2vec file has, be it text or binary.

    Raises:
        DataError: the file is missing, compressed, cut off, or no file of word vectors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST_LINE)
    except OSError as failure:
        raise DataError(f"{path}: the word2vec file cannot be read") from failure
    for beginning, remedy in _UNFIT.items():
        if start.startswith(beginning):
            raise DataError(f"{path}: {remedy}")
    header = start.partition(b"\n")[0].split()
    counted = len(header) == 2 and all(number.isdigit() for number in header)
    width = int(header[1]) if counted else len(header) - 1
    if width < 1:
        raise DataError(f"{path}: is no file of word vectors: its first line holds no word and its numbers")
    if counted and not _is_text(start.partition(b"\n")[2], width):
        return _read_binary(path, int(header[0]), width, frozenset(words))
    return _read_text(path, counted, width, frozenset(words))


def save_table(path: Path, table: np.ndarray) -> None:
    """Write ``table`` to the .npy file ``path``."""
    content = io.BytesIO()
    np.save(content, table, allow_pickle=False)
    write_atomically(path, lambda temporary: temporary.write_bytes(content.getvalue()), DataError)


def _is_text(body: bytes, width: int) -> bool:
    """Whether the first entry is a word and written numbers."""
    fields = body.partition(b"\n")[0].split()
    try:
        return len([float(number) for number in fields[1:]]) == width
    except ValueError:
        return False


def _read_text(path: Path, counted: bool, width: int, words: frozenset[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            word, _, rest = line.partition(" ")
            if word not in words or word in found or (counted and number == 1):
                continue
            try:
                vector = np.array(rest.split(), dtype=np.float32)
            except ValueError as failure:
                raise DataError(f"{path}:{number}: the vector of {word!r} holds no number") from failure
            if len(vector) != width:
                raise DataError(
                    f"{path}:{number}: the vector of {word!r} has {len(vector)} numbers instead of {width}"
                )
            found[word] = vector
    return found


def _read_binary(path: Path, count: int, width: int, words: frozenset[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    wanted = {word.encode(): word for word in words}
    size = 4 * width
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = content.find(b"\n") + 1
        for entry in range(count):
            space = content.find(b" ", position, position + _LONGEST_LINE)
            end = space + 1 + size
            if space < 0 or end > len(content):
                raise DataError(f"{path}: ends within word {entry + 1} of {count}; fetch the file again")
            word = wanted.get(content[position:space].lstrip(b"\n"))
            if word is not None and word not in found:
                found[word] = np.frombuffer(content[space + 1 : end], "<f4").copy()
            position = end
    return found


def main(argv: list[str] | None = None) -> None:
    """Make the table that the command line describes."""
    parser = command_line(__doc__)
    parser.add_argument("word2vec", type=Path, help="word vectors as word2vec writes them, text or binary")
    parser.add_argument("classes", type=Path, help="text file, one class name per line")
    parser.add_argument("table", type=Path, help="the .npy file to write")
    args = parser.parse_args(argv)
    names = read_names(args.classes)
    vectors = read_vectors(args.word2vec, {word for name in names for word in name.split()})
    save_table(args.table, make_table(names, vectors, args.word2vec))
    print(f"{args.table}: word vectors of the background and {len(names) - 1} classes")


if __name__ == "__main__":
    run_script(main)
