"""One fold of a data set opened for use: its classes, lists, areas and episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fewseg.dataset.classes.class_folders import (
    CLASS_FOLDER_DATA_SETS,
    TARGET_DATA_SETS,
    ClassFolders,
)
from fewseg.dataset.classes.folds_file import FOLDS_FILE, read_folds
from fewseg.dataset.classes.own_names import CLASSES_FILE, read_class_names
from fewseg.dataset.classes.split import ClassSplit, class_split
from fewseg.dataset.episodes.manifest import Manifest, test_episodes
from fewseg.dataset.episodes.protocol import Protocol
from fewseg.dataset.lists.area_index import AreaIndex
from fewseg.dataset.lists.image_lists import (
    LIST_FOLDER,
    EpisodeLists,
    ImageList,
    check_labels,
    episode_lists,
    generalized_lists,
    read_image_list,
)
from fewseg.dataset.reading.transform import Resize, square_label
from fewseg.util.errors import DataError


@dataclass(frozen=True)
class Fold:
    """A fold of a data set under a protocol. Lists and areas are read when they are first asked for.

    Attributes:
        data_set: name of the data set.
        number: zero-based index of the fold.
        classes: base and novel classes.
        protocol: how images are listed and episodes drawn.
        root, train_list, val_list: the data root and the two lists that the fold is read from.
        class_folders: the classes of a data set whose images lie in a folder per class.
    """

    data_set: str
    number: int
    classes: ClassSplit
    protocol: Protocol
    root: Path
    train_list: Path
    val_list: Path
    class_folders: ClassFolders | None = None

    @cached_property
    def train_images(self) -> ImageList:
        """All training images of the data set.

        Raises:
            DataError: the list cannot be read, or the data set only tests.
        """
        if self.data_set in TARGET_DATA_SETS:
            raise DataError(
                f"{self.data_set}: has no classes to train on: it tests models that other data trained"
            )
        return self._images(self.train_list)

    @cached_property
    def val_images(self) -> ImageList:
        """All test images of the data set."""
        return self._images(self.val_list)

    @cached_property
    def train_areas(self) -> AreaIndex:
        """Label areas of the training masks, checked against the classes."""
        return self._areas(self.train_images)

    @cached_property
    def val_areas(self) -> AreaIndex:
        """Label areas of the test masks, checked against the classes."""
        return self._areas(self.val_images)

    @property
    def resize(self) -> Resize:
        """How the protocol brings an image to the network's input."""
        return Resize(self.protocol.input_size, self.protocol.resize, self.protocol.antialias)

    def scored_label(self, mask: np.ndarray) -> np.ndarray:
        """Return the label that predictions are scored against, for a query with mask [H,W]."""
        if self.protocol.label_size == "input":
            return self.resize.label(mask)
        return square_label(mask) if self.protocol.label_size == "square" else mask

    def _images(self, path: Path) -> ImageList:
        images = read_image_list(self.root, path)
        return images if self.class_folders is None else self.class_folders.with_class_ids(images)

    def _areas(self, images: ImageList) -> AreaIndex:
        areas = images.index()
        check_labels(areas, len(self.classes.names) - 1, self.root)
        return areas

    def train_lists(self, shot: int) -> EpisodeLists:
        """Return the lists that training episodes are drawn from."""
        drop = self.protocol.novel_in_train == "remove"
        return self._lists(self.train_images, self.train_areas, shot, novel=False, drop_unwanted=drop)

    def test_lists(self, shot: int) -> EpisodeLists:
        """Return the lists that test episodes are drawn from."""
        return self._lists(self.val_images, self.val_areas, shot, novel=True)

    def _lists(
        self, images: ImageList, areas: AreaIndex, shot: int, *, novel: bool, drop_unwanted: bool = False
    ) -> EpisodeLists:
        return episode_lists(
            images,
            areas,
            self.classes,
            novel=novel,
            shot=shot,
            drop_unwanted=drop_unwanted,
            min_area=self.protocol.min_area,
            small_classes=self.protocol.small_classes,
        )

    def for_selection(self) -> Fold:
        """Return the fold whose test episodes select snapshots during training.

        Episodes of held-out classes come from the test images. Where every image shows one class only, they
        come from the training images: training never uses the images of a held-out class.
        """
        if not self.classes.held_out:
            return self
        images = self.val_list if self.class_folders is None else self.train_list
        return replace(self, classes=self.classes.for_selection(), val_list=images)

    def manifest(
        self, seed: int, shot: int, *, ways: int = 1, episodes: int | None = None, generalized: bool = False
    ) -> Manifest:
        """Draw the test episodes of one seed, by default as many as the protocol says."""
        if generalized:
            rule = self.protocol.small_classes
            lists = generalized_lists(
                self.val_images, self.val_areas, self.classes, shot=shot, small_classes=rule
            )
        else:
            lists = self.test_lists(shot)
        return test_episodes(
            lists,
            data_set=self.data_set,
            fold=self.number,
            protocol=self.protocol.name,
            seed=seed,
            shot=shot,
            ways=ways,
            episodes=self.protocol.episodes if episodes is None else episodes,
            query_order="list" if generalized else self.protocol.query_order,
            repeat_supports=self.protocol.repeat_supports,
            generalized=generalized,
        )


def default_list(data_set: str, root: str | Path, key: str) -> Path:
    """Return the default path of the ``train_list`` or ``val_list`` of a data set."""
    test = "test" if data_set in CLASS_FOLDER_DATA_SETS else "val"
    return Path(root) / LIST_FOLDER / f"{'train' if key == 'train_list' else test}.txt"


def open_fold(
    data_set: str,
    root: str | Path,
    number: int,
    protocol: Protocol,
    *,
    train_list: str | Path | None = None,
    val_list: str | Path | None = None,
    interleaved: bool | None = None,
) -> Fold:
    """Open a fold.

    Args:
        data_set: ``pascal``, ``coco``, ``shapes``; ``folder``, whose classes ``classes.txt`` names and whose
            folds ``folds.txt`` may define; or one of ``CLASS_FOLDER_DATA_SETS``, whose two lists define base
            and novel classes.
        root: data root.
        number: zero-based index of the fold.
        protocol: how images are listed and episodes drawn.
        train_list, val_list: lists, by default those of the VOC layout; for ``CLASS_FOLDER_DATA_SETS``
            ``val_list`` is the list of the test classes.
        interleaved: COCO's fold system, by default the protocol's.

    Raises:
        DataError: there is no such fold, or class names cannot be read. Lists are read when they are used.
    """
    root = Path(root)
    given = {"train_list": train_list, "val_list": val_list}
    train, val = (Path(path) if path else default_list(data_set, root, key) for key, path in given.items())
    if data_set in CLASS_FOLDER_DATA_SETS:
        folders = ClassFolders.read(root)
        trained = None if data_set in TARGET_DATA_SETS else train
        split = _with_held_out(folders.split(number, trained, val), protocol)
        return Fold(data_set, number, split, protocol, root, train, val, folders)
    if interleaved is None:
        interleaved = protocol.interleaved_folds
    names = read_class_names(root / CLASSES_FILE) if data_set == "folder" else None
    if names is not None and (root / FOLDS_FILE).is_file():
        split = read_folds(root / FOLDS_FILE, names).split(number)
    else:
        split = class_split(data_set, number, interleaved=interleaved and data_set == "coco", names=names)
    return Fold(data_set, number, _with_held_out(split, protocol), protocol, root, train, val)


def _with_held_out(split: ClassSplit, protocol: Protocol) -> ClassSplit:
    return split.hold_out() if protocol.selection == "held_out_base" else split
