"""The folds of a user's data set: ``folds.txt``, one fold per line, its novel classes separated by commas.

# classes by name or by id; a class that is on no line is a base class of every fold
shirt, trousers, hat
dress, 7, 12
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewseg.dataset.classes.split import ClassSplit
from fewseg.util.errors import DataError
from fewseg.util.files import read_text, write_text

FOLDS_FILE = "folds.txt"


@dataclass(frozen=True)
class Folds:
    """The classes that each fold tests.

    Attributes:
        novel: ids of each fold's novel classes, ascending.
        names: name of every class by id, ``names[0]`` the background.
    """

    novel: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]

    def split(self, fold: int) -> ClassSplit:
        """Return the classes of one fold; with a single class there are no base classes.

        Raises:
            DataError: there is no such fold.
        """
        if not 0 <= fold < len(self.novel):
            raise DataError(f"split {fold}: {FOLDS_FILE} has the folds 0 to {len(self.novel) - 1}")
        base = tuple(c for c in range(1, len(self.names)) if c not in self.novel[fold])
        return ClassSplit(self.novel[fold], base, self.names)

    def write(self, path: str | Path) -> None:
        """Write the file that ``read_folds`` reads; classes are named where the name is unambiguous."""
        lines = ["# The novel classes of each fold, one fold per line; by name or by id."]
        lines += [", ".join(self._word(c) for c in fold) for fold in self.novel]
        write_text(path, "\n".join(lines) + "\n", DataError)

    def _word(self, class_id: int) -> str:
        name = self.names[class_id]
        plain = "," not in name and not name.isdigit() and not name.startswith("#")
        return name if plain and self.names.count(name) == 1 else str(class_id)


def balanced_folds(images: Mapping[int, int], folds: int, names: Sequence[str]) -> Folds:
    """Distribute the classes over folds so that each fold gets frequent and rare classes.

    Args:
        images: class id -> number of images that show it; classes without images are in no fold.
        folds: number of folds.
        names: name of every class by id.

    Raises:
        DataError: there are fewer classes with images than folds.
    """
    by_images = sorted((c for c, count in images.items() if count), key=lambda c: (-images[c], c))
    if not 1 <= folds <= len(by_images):
        raise DataError(
            f"{len(by_images)} classes with images cannot be cut into {folds} folds; give --folds "
            f"1 to {len(by_images)}"
        )
    dealt: list[list[int]] = [[] for _ in range(folds)]
    for rank, class_id in enumerate(by_images):
        round_index, place = divmod(rank, folds)
        # Every second round is reversed, so that the first fold does not always get the most frequent class.
        dealt[place if round_index % 2 == 0 else folds - 1 - place].append(class_id)
    return Folds(tuple(tuple(sorted(fold)) for fold in dealt), tuple(names))


def read_folds(path: str | Path, names: Sequence[str]) -> Folds:
    """Read ``folds.txt``.

    Raises:
        DataError: the file cannot be read, a fold is empty, a class is unknown or tested by two folds.
    """
    lines = read_text(path, "the folds").splitlines()
    novel: list[tuple[int, ...]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}:{number}"
        words = [word.strip() for word in line.split(",") if word.strip()]
        if not words:
            raise DataError(f"{where}: the fold is empty; name its novel classes or delete the line")
        fold = [_class_id(word, names, where) for word in words]
        taken = [c for c in fold if fold.count(c) > 1 or any(c in other for other in novel)]
        if taken:
            raise DataError(f"{where}: {names[taken[0]]} is a novel class twice; keep it in one fold")
        novel.append(tuple(sorted(fold)))
    if not novel:
        raise DataError(f"{path}: names no fold; write one per line, its novel classes separated by commas")
    return Folds(tuple(novel), tuple(names))


def _class_id(word: str, names: Sequence[str], where: str) -> int:
    if word.isdigit() and 1 <= int(word) < len(names):
        return int(word)
    if word not in names[1:]:
        raise DataError(
            f"{where}: there is no class {word}; classes.txt names 1 ({names[1]}) to "
            f"{len(names) - 1} ({names[-1]})"
        )
    return names.index(word, 1)
