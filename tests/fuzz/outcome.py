"""What may come of reading a damaged file: it is accepted and means something, or refused in one line.

A case is named by its kind and its number, from which everything random follows: the name of a failed test
reproduces it. ``FEWSEG_MUTATIONS=10`` tries ten times as many cases.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fewseg.util.errors import UserError

SECONDS = 5.0
"""Of one core, that reading a small file may take; the shipped ones take a hundredth of that."""
PATIENCE = 60.0
"""Seconds that it may wait for anything else."""
BYTES = 1 << 30
"""Address space that reading a small file may add."""


class TooLong(BaseException):
    """The time is up."""


def cases(count: int) -> range:
    """Return the numbers of the cases of a kind."""
    return range(count * int(os.environ.get("FEWSEG_MUTATIONS", "1")))


def generator(kind: str, number: int) -> random.Random:
    """Return the generator that a case draws from."""
    return random.Random(f"{kind}/{number}")


def accepted(action: Callable[[], object], names: tuple[str, ...] = ()) -> bool:
    """Run ``action`` within bounds of time and memory; return whether it went through, or was refused.

    Args:
        action: reads a file and raises ``AssertionError`` where what it read means nothing.
        names: of which a refusal must name one: the file, the key.
    """
    started = time.process_time()
    try:
        with warnings.catch_warnings(), _bounded():
            warnings.simplefilter("ignore")
            action()
    except UserError as error:
        message = str(error)
        assert message.strip(), "SILENT: an error without a message"
        assert len(message.splitlines()) == 1, f"LINES: the message has several lines: {message!r}"
        assert len(message) < 2000, f"LINES: the message has {len(message)} characters"
        assert not names or any(name in message for name in names), (
            f"UNNAMED: {message!r} names none of {names}"
        )
        return False
    except AssertionError as error:
        pytest.fail(f"NONSENSE: {error}", pytrace=False)
    except TooLong:
        pytest.fail(f"HANG: not done after {SECONDS:g} s of work, {PATIENCE:g} s in all", pytrace=False)
    except MemoryError:
        pytest.fail(f"MEMORY: more than {BYTES >> 20} MiB", pytrace=False)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        pytest.fail(f"TRACEBACK: {type(error).__name__} at {place}: {str(error)[:200]}", pytrace=False)
    finally:
        taken = time.process_time() - started
    assert taken < SECONDS, f"HANG: took {taken:.1f} s"
    return True


@contextmanager
def _bounded() -> Iterator[None]:
    """Interrupt what takes too long, and refuse it memory beyond ``BYTES`` where the system can tell."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/statm")
    if status.is_file():
        present = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (present + BYTES, before[1]))
    previous = {number: signal.signal(number, _stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _stop(*_: object) -> None:
    raise TooLong
