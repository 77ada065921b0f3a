"""The data doctor: everything that is wrong with the images and masks of a data set, found in one run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fewseg.dataset.labels import VOID
from fewseg.dataset.lists.image_lists import ImageList
from fewseg.dataset.reading.mask import label_counts, read_image, read_mask
from fewseg.dataset.shapes.files import voc_palette
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map

EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One kind of problem.

    Attributes:
        problem: what is wrong.
        where: everything that it was found in.
        remedy: what to do.
        serious: whether the data set should not be used like this; otherwise it is worth knowing only.
    """

    problem: str
    where: tuple[str, ...]
    remedy: str
    serious: bool = True


@dataclass(frozen=True)
class Look:
    """What a look at one image and its mask gave.

    Attributes:
        image, mask: what is wrong with the file, or "".
        sizes: (width, height) of both, where both can be read.
        labels: that the mask holds.
        digest: of the decoded image.
    """

    image: str = ""
    mask: str = ""
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    labels: frozenset[int] = frozenset()
    digest: bytes = b""


def look(paths: tuple[str, str]) -> Look:
    """Read an image and its mask completely."""
    image_path, mask_path = paths
    wrong, image, mask = {}, None, None
    try:
        image = read_image(image_path)
    except DataError as failure:
        wrong["image"] = str(failure)
    try:
        mask = read_mask(mask_path)
    except DataError as failure:
        wrong["mask"] = str(failure)
    sizes = None
    if image is not None and mask is not None:
        sizes = (image.shape[1::-1], mask.shape[::-1])
    labels = frozenset() if mask is None else frozenset(np.flatnonzero(label_counts(mask)).tolist())
    digest = b"" if image is None else hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    return Look(sizes=sizes, labels=labels, digest=digest, **wrong)


def examine(
    parts: Mapping[str, ImageList],
    names: Sequence[str] | None,
    *,
    complete: bool = True,
    workers: int | None = None,
) -> list[Finding]:
    """Look at every listed image and mask.

    Args:
        parts: the lists, "train" and "val" or "test" among them.
        names: name of every class by id, background first; None where they are not known, so that labels
            cannot be held against them.
        complete: whether every class must have images.
    """
    looks: dict[str, list[Look]] = {}
    for part, images in parts.items():
        root = images.root
        paths = [(str(root / i), str(root / m)) for i, m in zip(images.images, images.masks, strict=True)]
        looks[part] = list(parallel_map(look, paths, title=f"examining {part}", workers=workers))
    every = [
        (images.images[i], images.masks[i], found)
        for part, images in parts.items()
        for i, found in enumerate(looks[part])
    ]
    findings = [
        Finding(
            "image missing, corrupt or truncated",
            _unique(image for image, _, found in every if found.image),
            "fetch or export it again, or take it off the list",
        ),
        Finding(
            "mask missing, corrupt, or no index image",
            _unique(mask for _, mask, found in every if found.mask),
            "export it as an 8-bit palette or grey PNG of class ids",
        ),
        Finding(
            "mask of another size than its image",
            _unique(
                f"{mask} ({_size(found.sizes[1])}, image {_size(found.sizes[0])})"
                for _, mask, found in every
                if found.sizes and found.sizes[0] != found.sizes[1]
            ),
            "export both at one size; masks by nearest neighbour",
        ),
        *([] if names is None else _label_findings(every, parts, len(names) - 1)),
        *([] if names is None else _class_findings(parts, looks, names, complete)),
        *_duplicates(parts, looks),
    ]
    return [finding for finding in findings if finding.where]


def _label_findings(
    every: Sequence[tuple[str, str, Look]], parts: Mapping[str, ImageList], classes: int
) -> list[Finding]:
    if any(images.class_ids is not None for images in parts.values()):
        classes = 1  # masks of 0 and 1; the folder tells the class
    allowed, greys = set(range(classes + 1)) | {VOID}, palette_greys(classes)
    grey, outside, void = [], [], []
    for _, mask, found in every:
        beyond = found.labels - allowed
        if beyond and found.labels <= greys:
            grey.append(mask)
        elif beyond:
            outside.append(f"{mask} ({', '.join(map(str, sorted(beyond)[:5]))})")
        if found.labels == {VOID}:
            void.append(mask)
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
        Finding("mask of nothing but void", _unique(void), "take the image off the list"),
    ]


def palette_greys(classes: int) -> set[int]:
    """Return what VOC's colours of the classes, background and void become when decoded to grey."""
    colours = voc_palette()[[*range(classes + 1), VOID]][None]
    return set(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)[0].tolist())


def _class_findings(
    parts: Mapping[str, ImageList], looks: Mapping[str, Sequence[Look]], names: Sequence[str], complete: bool
) -> list[Finding]:
    shown: dict[str, set[int]] = {}
    for part, images in parts.items():
        if images.class_ids is not None:
            pairs = zip(images.class_ids, looks[part], strict=True)
            shown[part] = {c for c, found in pairs if 1 in found.labels}
        else:
            shown[part] = set().union(*(found.labels for found in looks[part]))
    ids = [c for c in range(1, len(names)) if c != VOID]
    nowhere = [f"{names[c]} ({c})" for c in ids if not any(c in found for found in shown.values())]
    findings = [
        Finding(
            "class without a pixel in any list",
            tuple(nowhere),
            "add images, or go on without; keep its line in classes.txt, since masks hold the ids",
            serious=complete,
        )
    ]
    if any(images.class_ids is not None for images in parts.values()):
        return findings  # there, every class belongs to one list
    somewhere = set().union(*shown.values())
    for part, found in shown.items():
        absent = [f"{names[c]} ({c})" for c in ids if c in somewhere and c not in found]
        findings.append(
            Finding(
                f"class without images in {part}",
                tuple(absent),
                "no episode asks for it there",
                serious=False,
            )
        )
    return findings


def _duplicates(parts: Mapping[str, ImageList], looks: Mapping[str, Sequence[Look]]) -> list[Finding]:
    held: dict[bytes, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for part, images in parts.items():
        for name, found in zip(images.images, looks[part], strict=True):
            if found.digest:
                held[found.digest][part].append(name)
    across = [
        " = ".join(dict.fromkeys(f"{part}:{names[0]}" for part, names in of.items()))
        for of in held.values()
        if len(of) > 1
    ]
    within = [" = ".join(names) for of in held.values() for names in of.values() if len(names) > 1]
    return [
        Finding(
            "same image in training and test", tuple(across), "take it off one list: scores would be too good"
        ),
        Finding(
            "same image twice in one list", tuple(within), "take one of them off the list", serious=False
        ),
    ]


def _unique(where: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(where))


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def to_table(findings: Sequence[Finding], examples: int | None = EXAMPLES) -> str:
    """Return the findings as a table for the terminal, the serious ones first.

    Args:
        examples: of each finding; None names all.
    """
    rows = [("problem", "count", "for example", "remedy")]
    for finding in sorted(findings, key=lambda f: not f.serious):
        shown = finding.where[:examples]
        rest = len(finding.where) - len(shown)
        for number, example in enumerate(shown):
            first = number == 0
            rows.append(
                (
                    (finding.problem if finding.serious else f"note: {finding.problem}") if first else "",
                    str(len(finding.where)) if first else "",
                    example + (f" (and {rest} more)" if rest and number == len(shown) - 1 else ""),
                    finding.remedy if first else "",
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"
