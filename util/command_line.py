"""What the command lines of scripts and tools have in common."""

from __future__ import annotations

import argparse


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows a description, the page of a script, with its line breaks."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_config(
    parser: argparse.ArgumentParser, meaning: str, example: str = "split 1", *, required: bool = True
) -> None:
    """Add ``--config`` and ``--opts``.

    Args:
        meaning: of the config, for the help.
        example: a change to it, likewise.
        required: whether a config must be given.
    """
    parser.add_argument("--config", required=required, metavar="YAML", help=meaning)
    parser.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help=f"changes to the config: {example}"
    )


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add ``--folds``, ``--shots``, ``--protocol``, ``--episodes``, ``--seeds`` and ``--generalized``."""
    add = parser.add_argument
    add("--folds", nargs="+", type=int, metavar="FOLD", help="the config's by default")
    add("--shots", nargs="+", type=int, metavar="K", help="numbers of supports; the config's by default")
    add("--protocol", metavar="NAME", help="what to test under; the config's by default")
    add("--episodes", type=int, metavar="N", help="episodes per seed; the protocol's by default")
    add("--seeds", nargs="+", type=int, metavar="SEED", help="the protocol's by default")
    add("--generalized", action="store_true", help="segment base classes and novel ones at once")
