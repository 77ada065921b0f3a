"""What the command lines of scripts and tools have in common."""

from __future__ import annotations

import argparse

from fewseg.util.config.file import parse_value
from fewseg.util.config.plain_yaml import as_text
from fewseg.util.errors import UserError


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
    """Add the options of tests: which folds and shots, on which data, and under which protocol."""
    add = parser.add_argument
    add("--folds", nargs="+", type=int, metavar="FOLD", help="the config's by default")
    add("--shots", nargs="+", type=int, metavar="K", help="numbers of supports; the config's by default")
    add(
        "--data",
        nargs="+",
        metavar=("YAML", "KEY VALUE"),
        help="other data than the training's to test on, and changes: config/_base_/dataset/folder.yaml "
        "data_root PATH",
    )
    add("--protocol", metavar="NAME", help="what to test under; the config's by default")
    add("--episodes", type=int, metavar="N", help="episodes per seed; the protocol's by default")
    add("--seeds", nargs="+", type=int, metavar="SEED", help="the protocol's by default")
    add("--generalized", action="store_true", help="segment base classes and novel ones at once")


def other_data(words: list[str] | None) -> dict[str, str]:
    """Return the keys of a config that ``--data`` sets, for its words on the command line.

    Raises:
        UserError: a key has no value.
    """
    if words is None:
        return {}
    path, *changes = words
    if len(changes) % 2:
        raise UserError(f"--data: {changes[-1]} has no value; give pairs behind the file: data_root PATH")
    pairs = zip(changes[::2], changes[1::2], strict=True)
    options = {key: parse_value(text, f"--data {key}") for key, text in pairs}
    return {"data": path, **({"data_opts": as_text(options)} if options else {})}
