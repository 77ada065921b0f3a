"""Data sets with a folder per class and one class per image, such as FSS-1000.

Masks are 0 and 1. Class ids number the folders in the order of ``classes.txt`` and skip 255, which is void.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fewseg.dataset.classes.own_names import CLASSES_FILE, read_class_names
from fewseg.dataset.classes.split import ClassSplit
from fewseg.dataset.labels import VOID
from fewseg.dataset.lists.image_lists import ImageList, read_image_list
from fewseg.util.errors import DataError

TARGET_DATA_SETS = frozenset({"deepglobe", "isic", "chest_xray"})
"""The data sets of CD-FSS that only test: all of their classes are novel, and they have no training list."""

CLASS_FOLDER_DATA_SETS = frozenset({"fss1000", "shapes1000", *TARGET_DATA_SETS})
"""The data sets that are read so: by their lists, with fold 0 only."""


@dataclass(frozen=True)
class ClassFolders:
    """The classes of a data set with a folder per class.

    Attributes:
        names: name of every class by id; 0 is the background and 255 void.
        ids: class id by name.
    """

    names: tuple[str, ...]
    ids: dict[str, int]

    @classmethod
    def read(cls, root: str | Path) -> ClassFolders:
        """Read ``classes.txt`` of the data root."""
        # Only the first line may be called "background"; it names no folder.
        _, *folders = read_class_names(Path(root) / CLASSES_FILE)
        names = ["background", *folders]
        if len(names) > VOID:
            names.insert(VOID, "void")
        return cls(tuple(names), {name: i for i, name in enumerate(names) if i not in (0, VOID)})

    def with_class_ids(self, images: ImageList) -> ImageList:
        """Return the list with the class of every image, which the folder of its mask names.

        Raises:
            DataError: ``classes.txt`` does not name a folder.
        """
        folders = [PurePosixPath(mask).parent.name for mask in images.masks]
        unknown = next((folder for folder in folders if folder not in self.ids), None)
        if unknown is not None:
            raise DataError(f"{images.root}: the list names folder {unknown}, but classes.txt does not")
        return replace(images, class_ids=tuple(self.ids[folder] for folder in folders))

    def split(self, fold: int, train_list: Path | None, test_list: Path) -> ClassSplit:
        """Return base and novel classes: those of the training list and those of the test list.

        Args:
            fold: 0, the only fold.
            train_list, test_list: the lists; without a training list there are no base classes.

        Raises:
            DataError: the fold is not 0, or a class is in both lists.
        """
        if fold:
            raise DataError(
                f"split {fold}: the data set has fixed classes for training and test: fold 0 only"
            )
        base, novel = (set() if path is None else self._classes(path) for path in (train_list, test_list))
        if shared := base & novel:
            raise DataError(
                f"{test_list}: tests {len(shared)} classes that {train_list} trains on, first "
                f"{self.names[min(shared)]}; prepare the lists anew"
            )
        return ClassSplit(tuple(sorted(novel)), tuple(sorted(base)), self.names)

    def _classes(self, path: Path) -> set[int]:
        return set(self.with_class_ids(read_image_list(path.parent, path)).class_ids or ())
