"""Check that a manifest of test episodes fits the data that it is used with."""

from __future__ import annotations

from pathlib import Path

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.util.errors import DataError, as_word


def check_manifest(
    manifest: Manifest, fold: Fold, path: str | Path, *, shot: int, ways: int, generalized: bool = False
) -> None:
    """Raise DataError unless the episodes have this shot and ways, and this fold's classes and images.

    Args:
        manifest: the manifest as read from its file.
        fold: the fold that is tested.
        path: path of the file, for messages.
        shot, ways, generalized: what the run evaluates.
    """
    expected = {
        "data_set": fold.data_set,
        "protocol": fold.protocol.name,
        "fold": fold.number,
        "shot": shot,
        "ways": ways,
        "generalized": generalized,
    }
    drawn_for = manifest.header
    wrong = [
        f"{key} {as_word(drawn_for[key])}, not {value}"
        for key, value in expected.items()
        if drawn_for[key] != value
    ]
    if wrong:
        raise DataError(f"{path}: drawn for {'; '.join(wrong)}; take the file that was drawn for this run")
    if not len(manifest):
        raise DataError(f"{path}: holds no episode; write it anew with tools/episodes.py")
    _check_names(manifest, fold, path)
    _check_episodes(manifest, fold, path)


def _check_names(manifest: Manifest, fold: Fold, path: str | Path) -> None:
    names = dict.fromkeys(
        name for spec in manifest for name in (spec.query, *(name for way in spec.supports for name in way))
    )
    missing = [name for name in names if name not in fold.val_images.position]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of its {len(names)} images, first {as_word(missing[0])}, are not in "
            f"{fold.val_list}; it belongs to another data set or another list"
        )


def _check_episodes(manifest: Manifest, fold: Fold, path: str | Path) -> None:
    novel = {class_id: column for column, class_id in enumerate(fold.classes.novel)}
    shows, position = fold.val_areas.at_least(fold.classes.novel), fold.val_images.position
    for number, spec in enumerate(manifest, 1):
        where = f"{path}: episode {number}"
        unknown = [class_id for class_id in spec.class_ids if class_id not in novel]
        if unknown:
            raise DataError(f"{where}: fold {fold.number} does not test class {unknown[0]}; write it anew")
        shape = (len(spec.class_ids), len(spec.supports), {len(way) for way in spec.supports})
        if shape != (manifest.ways, manifest.ways, {manifest.shot}):
            raise DataError(f"{where}: is not {manifest.ways}-way {manifest.shot}-shot; write it anew")
        for class_id, supports in zip(spec.class_ids, spec.supports, strict=True):
            repeated = len(set(supports)) < len(supports) and not fold.protocol.repeat_supports
            if spec.query in supports or repeated:
                raise DataError(f"{where}: an image is in it twice; write it anew")
            blank = [name for name in supports if not shows[position[name], novel[class_id]]]
            if blank:
                raise DataError(
                    f"{where}: {blank[0]} does not show class {class_id} ({fold.classes.names[class_id]}); "
                    "the masks differ from those that it was drawn from"
                )
