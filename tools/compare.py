"""Compare results: tables over methods, folds and shots, with 95 % intervals and paired differences.

python tools/compare.py exp/pascal/bam_resnet50 exp/pascal/pfenet_resnet50
python tools/compare.py ours=exp/a/results published=exp/b/results --format latex --out comparison
python tools/compare.py exp/a exp/b --mixed        # other protocols or episodes: a column tells them apart
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.engine.setup.script import run_script
from fewseg.util.command_line import command_line
from fewseg.util.errors import ResultError
from fewseg.util.files import write_text
from fewseg.util.results.comparison import (
    Run,
    comparison_table,
    difference_table,
    read_runs,
    require_comparable,
)
from fewseg.util.results.formats import FORMATS
from fewseg.util.results.tables import Table

LAST = {"mIoU": "FB-IoU", "mIoU_meta": "FB-IoU_meta", "mIoU_t": "FB-IoU"}
"""Metric -> another one that ends the rows of its table."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("results", nargs="+", metavar="RESULT", help="result files or folders of them; NAME=PATH renames")
    add("--metric", metavar="NAME", help="mIoU by default; mIoU_n for generalised few-shot segmentation")
    add("--format", choices=FORMATS, default="terminal", help="what is printed (default: terminal)")
    add("--out", metavar="FOLDER", help="also write the tables in every format")
    add("--draws", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    add("--mixed", action="store_true", help="allow other protocols, episodes and oracles, in columns")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Compare as the command line says."""
    args = parse_arguments(argv)
    if args.draws < 40:
        raise ResultError(f"--draws {args.draws}: a 95 % interval needs at least 40")
    runs = read_runs(args.results)
    if not args.mixed:
        require_comparable(runs)
    for name, table in tables_of(runs, args).items():
        print(FORMATS[args.format][1](table))
        if args.out:
            for suffix, write in FORMATS.values():
                write_text(Path(args.out) / f"{name}.{suffix}", write(table), ResultError)
    without = [str(run.path) for run in runs if run.counts is None]
    if without:
        print(f"no counts of episodes, hence no interval: {', '.join(without)}", file=sys.stderr)


def tables_of(runs: list[Run], args: argparse.Namespace) -> dict[str, Table]:
    """Return the tables by name."""
    metric = args.metric or next((m for m in ("mIoU", "mIoU_n") if m in runs[0].result.mean), "mIoU")
    table = comparison_table(runs, metric, LAST.get(metric), draws=args.draws, mixed=args.mixed)
    difference = difference_table(runs, metric, draws=args.draws)
    return {metric: table} | ({f"{metric}_difference": difference} if difference else {})


if __name__ == "__main__":
    run_script(main)
