"""Progress: a bar on a terminal; in a file plain lines, and none for what is quickly over."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from fewseg.util.progress import progress

ROOT = Path(__file__).resolve().parents[2]

LOOP = """
import logging, sys, time
from fewseg.util import progress as module
from fewseg.util.log import start_log
module.LINE_SECONDS = float(sys.argv[1])
log = start_log()
bar = module.progress(iter(range(40)) if "unknown" in sys.argv else range(40), "epoch 1/2")
for number in bar:
    time.sleep(0.002)
    bar.set_postfix(loss=f"{number}", refresh=False)
    if number == 20:
        log.warning("a warning amid the loop")
        log.info("a line amid the loop")
"""


def run(*arguments: object, terminal: bool = False) -> str:
    """Return what the loop writes to its stderr: a pipe or a terminal."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [sys.executable, "-c", LOOP, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 1 << 16):
            said += piece
    except OSError:  # so ends a terminal that nobody writes to any more
        pass
    os.close(ours)
    return said.decode()


def test_gives_the_items_on() -> None:
    assert list(progress([1, 2, 3], "counting", disable=True)) == [1, 2, 3]
    assert list(progress([1, 2, 3], "counting")) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["known", "unknown"])
def test_a_file_gets_plain_lines(kind: str) -> None:
    said = run(0.01, kind)
    assert not set("\r\x1b") & set(said)
    lines = [line for line in said.splitlines() if "epoch 1/2" in line]
    assert all("loss=" in line for line in lines)
    assert lines
    if kind == "known":
        assert len(lines) <= 10 and "%" in lines[-1] and "/40" in lines[-1]
    assert "a warning amid the loop" in said.splitlines()


def test_a_quick_loop_leaves_no_line() -> None:
    assert run(30) == "a warning amid the loop\n"


def test_a_terminal_gets_a_bar() -> None:
    said = run(30, terminal=True)
    assert "\r" in said and "epoch 1/2" in said
