"""Prepare a data set: ``python tools/prepare_data.py shapes --root data/shapes``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.shapes import draw_shapes
from util.errors import UserError


def add_shapes(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("shapes", help="draw the embedded data set (some seconds)")
    parser.add_argument("--root", type=Path, default=Path("data/shapes"), help="folder to draw into")
    parser.add_argument(
        "--images", type=int, default=1500, help="number of pictures, a quarter of them validation"
    )
    parser.add_argument("--size", type=int, default=144, help="side of the pictures in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=None, help="processes; default: one per core")
    parser.set_defaults(run=prepare_shapes)


def prepare_shapes(arguments: argparse.Namespace) -> None:
    drawn = draw_shapes(
        arguments.root, arguments.images, size=arguments.size, seed=arguments.seed, workers=arguments.workers
    )
    print(f"{arguments.root}: Shapes, {arguments.images} images, {'drawn' if drawn else 'already there'}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="DATA_SET")
    add_shapes(commands)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except UserError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
