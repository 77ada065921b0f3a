"""The machine that a benchmark runs on."""

from __future__ import annotations

import argparse
import datetime
import platform
from pathlib import Path

import torch

from fewseg.util.errors import UserError


def add_machine(parser: argparse.ArgumentParser, *, size: int = 473, rounds: int = 5) -> None:
    """Add the options that the measured sub-commands have in common, with their defaults."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--size", type=int, default=size, help=f"side of the images in px (default: {size})")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"measured runs of everything (default: {rounds})"
    )


def device_of(args: argparse.Namespace) -> torch.device:
    """Return the device that the command line names.

    Raises:
        UserError: it is a GPU, and there is none.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU on this machine; leave it out to measure the CPU")
    return torch.device(args.device)


def described(device: torch.device) -> str:
    """Return what a figure needs beside it: processor, torch's version, the day."""
    if device.type == "cuda":
        processor = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    else:
        processor = f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{processor}, torch {torch.__version__}, {datetime.date.today()}"


def _processor() -> str:
    """Return the name of the CPU."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
