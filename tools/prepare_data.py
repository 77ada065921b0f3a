"""Prepare a data set, or check one that is prepared.

python tools/prepare_data.py shapes                              # or shapes1000
python tools/prepare_data.py pascal                              # downloads VOC 2012 and SBD
python tools/prepare_data.py pascal --voc VOCdevkit --masks SegmentationClassAug
python tools/prepare_data.py coco --source /data/coco
python tools/prepare_data.py fss1000 --source fewshot_data
python tools/prepare_data.py deepglobe --source land-train      # also isic and chest-xray, for CD-FSS
python tools/prepare_data.py folder --source my_photographs --root data/mine
python tools/prepare_data.py folder --root data/mine --verify    # reports everything that is wrong
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.dataset.prepare.doctor import EXAMPLES, to_table
from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run import prepare_fss1000, prepare_pascal
from fewseg.dataset.prepare.run_cdfss import prepare_chest_xray, prepare_deepglobe, prepare_isic
from fewseg.dataset.prepare.run_coco import prepare_coco
from fewseg.dataset.prepare.run_folder import prepare_folder
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.shapes.files import draw_shapes
from fewseg.dataset.shapes.thousand import draw_shapes1000
from fewseg.util.command_line import command_line
from fewseg.util.errors import UserError
from fewseg.util.log import log_warnings, start_log, stop_log

ROOTS = {
    "shapes": "data/shapes",
    "shapes1000": "data/shapes1000",
    "pascal": "data/VOCdevkit2012/VOC2012",
    "coco": "data/MSCOCO2014",
    "fss1000": "data/fss1000",
    "deepglobe": "data/deepglobe",
    "isic": "data/isic",
    "chest-xray": "data/chest_xray",
    "folder": "data/folder",
}
"""Where the configs look for each data set."""


DRAWN = {
    "shapes": ("Shapes", draw_shapes, "images"),
    "shapes1000": ("Shapes-1000", draw_shapes1000, "images per class"),
}
"""The embedded data sets: title, what draws them, and what is counted."""

NEED_SOURCE = {
    "fss1000": "its images are published on a personal drive only; fetch them from the page that "
    "https://github.com/HKUSTCV/FSS-1000 names, and give the folder or archive by --source",
    "deepglobe": "fetch the land cover data set that http://deepglobe.org names; give it by --source",
    "isic": "fetch images and masks of task 1 of https://challenge.isic-archive.com/data, 2018; give them by "
    "--source",
    "chest-xray": "fetch the X-rays of Montgomery and Shenzhen with masks; give them by --source",
    "folder": "give the folder of your images and masks by --source",
}
"""What is said where ``--source`` is missing."""


def options_of(args: argparse.Namespace) -> Options:
    """Collect what all data sets share."""
    checksums = {}
    for pair in args.checksum:
        name, equals, value = pair.partition("=")
        if not equals or not value.startswith(("md5:", "sha256:")):
            raise UserError(f"--checksum {pair}: give ARCHIVE=md5:... or ARCHIVE=sha256:...")
        checksums[name] = value.lower()
    places = args.root, args.downloads, args.lists
    return Options(*places, args.mirror, checksums, args.subset, args.workers)


def prepare(args: argparse.Namespace) -> str:
    """Prepare the data set that is named; return what to say about it."""
    if args.data_set in NEED_SOURCE and args.source is None:
        raise UserError(f"{args.data_set}: {NEED_SOURCE[args.data_set]}")
    if args.data_set in DRAWN:
        title, draw, counted = DRAWN[args.data_set]
        drawn = draw(args.root, args.images, args.size, args.seed, args.workers)
        return f"{args.root}: {title}, {args.images} {counted}, {'drawn' if drawn else 'already there'}"
    options = options_of(args)
    if args.data_set == "pascal":
        return prepare_pascal(options, args.voc, args.sbd, args.masks)
    if args.data_set == "coco":
        return prepare_coco(options, args.source)
    if args.data_set == "fss1000":
        classes = args.test_classes, args.validation_classes
        return prepare_fss1000(options, args.source, *classes, args.seed)
    if args.data_set == "deepglobe":
        return prepare_deepglobe(options, args.source)
    if args.data_set == "isic":
        return prepare_isic(options, args.source, args.classes)
    if args.data_set == "chest-xray":
        return prepare_chest_xray(options, args.source)
    folds = args.folds, args.folds_file
    return prepare_folder(options, args.source, args.classes, *folds, args.val_share, args.seed)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    commands = parser.add_subparsers(required=True, metavar="DATA_SET", dest="data_set")

    def command(name: str, about: str, lists: Path | None = None) -> Callable[..., object]:
        added = commands.add_parser(name, help=about, description=about)
        add, root = added.add_argument, Path(ROOTS[name])
        add("--root", type=Path, default=root, help="data root to make (default: %(default)s)")
        add("--verify", action="store_true", help="only check what is there; status 1 if anything is wrong")
        add("--all", action="store_true", help="with --verify: name everything, not three examples of each")
        add("--subset", action="store_true", help="accept a part of the data set, whatever its counts")
        add("--workers", type=int, default=None, help="processes; default: one per core")
        add("--lists", type=Path, default=lists, help="folder for the lists (default: %(default)s)")
        add("--downloads", type=Path, default=Path("data/downloads"), help="folder for archives")
        add("--mirror", action="append", default=[], metavar="URL", help="folder of archives, tried first")
        add("--checksum", action="append", default=[], metavar="ARCHIVE=md5:...", help="of an archive")
        return add

    add = command("shapes", "draw the embedded data set (some seconds)")
    add("--images", type=int, default=1500, help="pictures, a quarter of them validation")
    add("--size", type=int, default=144, help="side of the pictures in pixels")
    add("--seed", type=int, default=0)
    add = command("shapes1000", "draw the embedded data set of 250 classes (some seconds)")
    add("--images", type=int, default=10, help="pictures per class")
    add("--size", type=int, default=96, help="side of the pictures in pixels")
    add("--seed", type=int, default=0)
    add = command("pascal", "PASCAL-5i: VOC 2012 and SBD", Path("lists/pascal"))
    add("--voc", type=Path, help="VOC 2012 that you have: folder or archive")
    add("--sbd", type=Path, help="SBD that you have: folder or archive")
    add("--masks", type=Path, help="SegmentationClassAug that you have, in place of SBD")
    add = command("coco", "COCO-20i: COCO 2014", Path("lists/coco"))
    add("--source", type=Path, help="folder with train2014, val2014, annotations, or their zips")
    add = command("fss1000", "FSS-1000: a folder per class")
    add("--source", type=Path, help="folder or archive of the class folders")
    add("--test-classes", type=Path, help="the official list; default: downloaded")
    add("--validation-classes", type=Path, help="a published list; default: drawn by --seed")
    add("--seed", type=int, default=0)
    add = command("deepglobe", "DeepGlobe's land cover, for CD-FSS")
    add("--source", type=Path, help="folder or archive of the images, or of tiles in <1..6>/test")
    add = command("isic", "ISIC 2018, for CD-FSS")
    add("--source", type=Path, help="folder with the challenge's two folders of task 1, or their zips")
    add("--classes", type=Path, help="table image,class; default: folders 1 to 3 hold the images")
    add = command("chest-xray", "chest X-rays of Montgomery and Shenzhen, for CD-FSS")
    add("--source", type=Path, help="folder or archive with CXR_png and masks")
    add = command("folder", "your own images and masks")
    add("--source", type=Path, help="folder of images and masks; docs/data.md shows the layouts")
    add("--classes", type=Path, help="class names, one per line; default: classes.txt in it")
    add("--folds", type=int, help="folds to deal the classes to; default: 4")
    add("--folds-file", type=Path, help="the folds themselves: a line each, classes by commas")
    add("--val-share", type=float, default=0.34, help="test share where there are no lists")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare or check; return the exit status: 1 for problems, 2 for a mistake, 130 if stopped."""
    args = parse_arguments(argv)
    start_log()
    try:
        if not args.verify:
            print(prepare(args))
            return 0
        data_set = args.data_set.replace("-", "_")
        findings = verify(data_set, args.root, subset=args.subset, workers=args.workers)
        table = to_table(findings, None if args.all else EXAMPLES)
        print(table if findings else f"{args.root}: nothing is wrong")
        return 1 if any(finding.serious for finding in findings) else 0
    except UserError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("prepare_data: stopped; what is finished is kept, run again to go on", file=sys.stderr)
        return 130
    finally:
        stop_log()


if __name__ == "__main__":
    log_warnings()
    sys.exit(main())
