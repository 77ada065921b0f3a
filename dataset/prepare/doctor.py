"""The data doctor, which finds all problems of the images and masks of a data set in one run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from fewseg.dataset.labels import VOID
from fewseg.dataset.lists.image_lists import ImageList
from fewseg.dataset.reading.mask import label_counts, read_image, read_mask
from fewseg.dataset.shapes.drawing import voc_palette
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map

EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One kind of problem.

    Attributes:
        problem: what is wrong.
        where: all files or classes that have the problem.
        remedy: what to do.
        serious: whether the data set should not be used like this; otherwise it is a note.
    """

    problem: str
    where: tuple[str, ...]
    remedy: str
    serious: bool = True


@dataclass(frozen=True)
class Pair:
    """What was read of an image and its mask.

    Attributes:
        image, mask: paths below the data root.
        image_size, mask_size: (width, height), or None where the file cannot be read.
        labels: labels that occur in the mask.
        digest: hash of the decoded image.
    """

    image: str
    mask: str
    image_size: tuple[int, int] | None
    mask_size: tuple[int, int] | None
    labels: frozenset[int]
    digest: bytes


def read_pair(root: Path, paths: tuple[str, str]) -> Pair:
    """Read an image and its mask completely."""
    image_size = mask_size = None
    labels: frozenset[int] = frozenset()
    digest = b""
    with suppress(DataError):
        image = read_image(root / paths[0])
        image_size = image.shape[1], image.shape[0]
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    with suppress(DataError):
        mask = read_mask(root / paths[1])
        mask_size = mask.shape[1], mask.shape[0]
        labels = frozenset(np.flatnonzero(label_counts(mask)).tolist())
    return Pair(*paths, image_size, mask_size, labels, digest)


def examine(
    parts: Mapping[str, ImageList],
    names: Sequence[str] | None,
    *,
    complete: bool = True,
    workers: int | None = None,
) -> list[Finding]:
    """Read every listed image and mask, and return their problems.

    Args:
        parts: part -> list of its images; the parts include "train" and "val" or "test".
        names: name of every class by id, background first; None where the names are unknown, so that labels
            cannot be checked.
        complete: whether every class must have images.
    """
    pairs: dict[str, list[Pair]] = {}
    for part, images in parts.items():
        paths = list(zip(images.images, images.masks, strict=True))
        read = partial(read_pair, images.root)
        pairs[part] = list(parallel_map(read, paths, title=f"examining {part}", workers=workers))
    every = [pair for of_part in pairs.values() for pair in of_part]
    findings = [*_file_findings(every), *_duplicates(pairs)]
    if names is not None:
        one_class = any(images.class_ids is not None for images in parts.values())
        findings += _label_findings(every, 1 if one_class else len(names) - 1)
        findings += _class_findings(parts, pairs, names, complete)
    return [finding for finding in findings if finding.where]


def _file_findings(every: Sequence[Pair]) -> list[Finding]:
    images = _unique(pair.image for pair in every if pair.image_size is None)
    masks = _unique(pair.mask for pair in every if pair.mask_size is None)
    sizes = _unique(
        "{} ({}x{}, image {}x{})".format(pair.mask, *pair.mask_size, *pair.image_size)
        for pair in every
        if pair.mask_size and pair.image_size and pair.mask_size != pair.image_size
    )
    remedy = "fetch or export it again, or take it off the list"
    return [
        Finding("image missing, corrupt or truncated", images, remedy),
        Finding(
            "mask missing, corrupt, or no index image",
            masks,
            "export it as an 8-bit palette or grey PNG of class ids",
        ),
        Finding(
            "mask of another size than its image",
            sizes,
            "export both at one size; masks by nearest neighbour",
        ),
    ]


def _label_findings(every: Sequence[Pair], classes: int) -> list[Finding]:
    """Check the labels of masks against the number of classes, which is 1 where masks are 0 and 1."""
    allowed, greys = set(range(classes + 1)) | {VOID}, palette_greys(classes)
    grey, outside = [], []
    for pair in every:
        beyond = sorted(pair.labels - allowed)
        if beyond and pair.labels <= greys:
            grey.append(pair.mask)
        elif beyond:
            outside.append(f"{pair.mask} ({', '.join(map(str, beyond[:5]))})")
    return [
        Finding(
            "palette mask decoded to grey",
            _unique(grey),
            "export it with its palette kept: Pillow opens it as mode P, OpenCV turns it to grey",
        ),
        Finding(
            f"label outside the classes 0..{classes} and {VOID}",
            _unique(outside),
            "add the class to classes.txt, or map the label to a class, 0 or 255",
        ),
        Finding(
            "mask of nothing but void",
            _unique(pair.mask for pair in every if pair.labels == {VOID}),
            "take the image off the list",
        ),
    ]


def palette_greys(classes: int) -> set[int]:
    """Return the grey values that VOC's colours of the classes, background and void are decoded to."""
    colours = voc_palette()[[*range(classes + 1), VOID]][None]
    return set(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)[0].tolist())


def _class_findings(
    parts: Mapping[str, ImageList], pairs: Mapping[str, Sequence[Pair]], names: Sequence[str], complete: bool
) -> list[Finding]:
    """Return the classes without images in any list, and those without images in one of the lists."""
    shown: dict[str, set[int]] = {}
    for part, images in parts.items():
        if images.class_ids is None:
            shown[part] = {label for pair in pairs[part] for label in pair.labels}
        else:
            of_class = zip(images.class_ids, pairs[part], strict=True)
            shown[part] = {class_id for class_id, pair in of_class if 1 in pair.labels}
    somewhere = set().union(*shown.values())
    labels = {c: f"{name} ({c})" for c, name in enumerate(names) if c not in (0, VOID)}
    nowhere = tuple(labels[c] for c in labels if c not in somewhere)
    remedy = "add images, or go on without; keep its line in classes.txt, since masks hold the ids"
    findings = [Finding("class without a pixel in any list", nowhere, remedy, complete)]
    if all(images.class_ids is None for images in parts.values()):  # else every class belongs to one list
        for part, in_part in shown.items():
            absent = tuple(labels[c] for c in labels if c in somewhere - in_part)
            problem = f"class without images in {part}"
            findings.append(Finding(problem, absent, "no episode asks for it there", serious=False))
    return findings


def _duplicates(pairs: Mapping[str, Sequence[Pair]]) -> list[Finding]:
    images_of: dict[bytes, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for part, of_part in pairs.items():
        for pair in of_part:
            if pair.digest:
                images_of[pair.digest][part].append(pair.image)
    across = tuple(
        " = ".join(dict.fromkeys(f"{part}:{names[0]}" for part, names in of.items()))
        for of in images_of.values()
        if len(of) > 1
    )
    within = tuple(" = ".join(names) for of in images_of.values() for names in of.values() if len(names) > 1)
    remedy = "take it off one list: scores would be too good"
    return [
        Finding("same image in training and test", across, remedy),
        Finding("same image twice in one list", within, "take one of them off the list", serious=False),
    ]


def _unique(where: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(where))


def to_table(findings: Sequence[Finding], examples: int | None = EXAMPLES) -> str:
    """Return the findings as a table for the terminal, the serious ones first.

    Args:
        examples: number of examples shown of each finding; None: all.
    """
    rows: list[tuple[str, ...]] = [("problem", "count", "for example", "remedy")]
    for finding in sorted(findings, key=lambda f: not f.serious):
        shown = list(finding.where[:examples])
        if rest := len(finding.where) - len(shown):
            shown[-1] += f" (and {rest} more)"
        problem = finding.problem if finding.serious else f"note: {finding.problem}"
        rows.append((problem, str(len(finding.where)), shown[0], finding.remedy))
        rows += [("", "", example, "") for example in shown[1:]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "".join("  ".join(row).rstrip() + "\n" for row in cells)
