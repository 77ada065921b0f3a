"""Make what ``lists/`` holds: ``python tools/make_lists.py``, and the counts of PASCAL-5i from your own copy.

python tools/make_lists.py                                        # class names and fold tables
python tools/make_lists.py --pascal data/VOCdevkit2012/VOC2012    # also lists/pascal/counts.json
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.dataset.lists.image_lists import read_image_list
from fewseg.dataset.prepare.pascal import FILES
from fewseg.dataset.prepare.shipped_lists import COUNTS_FILE, SYSTEMS, fold_counts, tables, to_text
from fewseg.engine.setup.script import run_script
from fewseg.util.command_line import command_line
from fewseg.util.files import write_text


def main(argv: list[str] | None = None) -> None:
    """Write the files."""
    parser = command_line(__doc__)
    parser.add_argument("--lists", type=Path, default=Path("lists"), help="folder to write")
    parser.add_argument("--pascal", type=Path, metavar="ROOT", help="a prepared PASCAL, to count anew")
    args = parser.parse_args(argv)
    for data_set in SYSTEMS:
        for name, text in tables(data_set).items():
            write_text(args.lists / data_set / name, text)
    if args.pascal is not None:
        folder = args.lists / "pascal"
        train, val = (read_image_list(args.pascal, folder / FILES[part]) for part in ("merged", "val"))
        counts = fold_counts(train, train.index(), val, val.index(), "pascal")
        write_text(folder / COUNTS_FILE, to_text(counts))


if __name__ == "__main__":
    run_script(main)
