"""What ``plan`` and ``status`` print: on a terminal in its width, elsewhere as plain text with full lines."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fewseg.engine.study.description.jobs import Kind
from fewseg.engine.study.progress.overview import JobView, Overview, duration
from fewseg.engine.study.running.state import State

_STYLES = {State.DONE: "green", State.RUNNING: "cyan", State.FAILED: "red", State.READY: "yellow"}

_PLAIN_WIDTH = 240
"""Columns of a line where output goes to a file; a longer line is cut."""

_SHOWN, _FAILURES = 20, 5
"""Jobs that a plan shows, and failures that a status shows, unless all are asked for."""

_EVERY = 2.0
"""Seconds between two refreshes, and more where reading takes long, so that it takes a tenth of the time."""

_SILENT = 60.0
"""Seconds after which a job that says nothing is shown as silent."""


def console(file: TextIO | None = None) -> Console:
    """Return rich's console for a file, standard output by default."""
    file = file or sys.stdout
    return Console(file=file, width=None if file.isatty() else _PLAIN_WIDTH, highlight=False)


def show_plan(overview: Overview, every_job: bool, out: Console | None = None) -> None:
    """Print the jobs of a study and what is left.

    Args:
        overview: the state of the study.
        every_job: whether all jobs are listed, and not only the first that run, failed, can start or are
            queued.
        out: where to; standard output by default.
    """
    first = overview.of(State.RUNNING, State.FAILED, State.READY, State.QUEUED)[:_SHOWN]
    chosen = overview.jobs if every_job else first
    out = out or console()
    out.print(_counts(overview))
    out.print()
    if chosen:
        out.print(_job_table(chosen))
    if len(chosen) < len(overview.jobs):
        out.print(f"and {len(overview.jobs) - len(chosen)} more; --jobs lists all")
    out.print()
    out.print(*_failures(overview.of(State.FAILED)), _hours_left(overview), sep="\n")


def show_status(overview: Overview, out: Console | None = None) -> None:
    """Print one screen: how much is done, what the running jobs do, and the last failures."""
    (out or console()).print(_status(overview))


def watch(read: Callable[[], Overview]) -> None:
    """Show the status of a study and refresh it until Ctrl-C.

    Args:
        read: reads the state of the study.
    """
    out = console()
    with suppress(KeyboardInterrupt), Live(console=out, screen=out.is_terminal, auto_refresh=False) as live:
        while True:
            begun = time.monotonic()
            live.update(_status(read()), refresh=True)
            time.sleep(max(_EVERY, 9 * (time.monotonic() - begun)))


def _status(overview: Overview) -> RenderableType:
    number, done = len(overview.jobs), len(overview.of(State.DONE))
    states = Counter(view.state for view in overview.jobs)
    bar = Table.grid(padding=(0, 2))
    counts = ", ".join(f"{states[state]} {state.value}" for state in State if states[state])
    bar.add_row(Text(overview.name, "bold"), ProgressBar(number, done, 30), f"{done}/{number}", Text(counts))
    running, failed = overview.of(State.RUNNING), overview.of(State.FAILED)
    failed = sorted(failed, key=_end)[-_FAILURES:]
    errors = [Text(), *_failures(failed)] if failed else []
    doing = _running_table(running) if running else Text("no job is running")
    return Group(bar, Text(_hours_left(overview)), *errors, Text(), doing)


def _counts(overview: Overview) -> Table:
    """Return the table of the numbers of jobs, by kind and state."""
    counts = Counter((view.job.kind, view.state) for view in overview.jobs)
    states = [state for state in State if any(counts[kind, state] for kind in Kind)]
    table = _table(overview.name)
    for state in states:
        table.add_column(state.value, justify="right", style=_STYLES.get(state))
    table.add_column("all", justify="right")
    for kind in Kind:
        numbers = [counts[kind, state] for state in states]
        if sum(numbers):
            table.add_row(kind.value, *map(str, numbers), str(sum(numbers)))
    totals = [sum(counts[kind, state] for kind in Kind) for state in states]
    table.add_row("all", *map(str, totals), str(sum(totals)), style="bold")
    return table


def _job_table(views: Sequence[JobView]) -> Table:
    table = _table("state", "kind", "key", "job")
    table.add_column("left", justify="right")
    for view in views:
        left = duration(view.left) if view.state is not State.DONE else ""
        state = Text(view.state.value, _STYLES.get(view.state, ""))
        table.add_row(state, view.job.kind.value, view.job.key, Text(view.job.name), left)
    return table


def _running_table(views: Sequence[JobView]) -> Table:
    table = _table("kind")
    table.add_column("job", min_width=12)  # in a narrow terminal, names are broken before figures are cut
    for name in ("at", "epoch", "step"):
        table.add_column(name, no_wrap=True)
    for name in ("s/step", "loss", "best", "host", "said", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for view in views:
        facts = view.live or {}
        table.add_row(
            view.job.kind.value,
            Text(view.job.name),
            Text(str(facts.get("phase", facts.get("work", "")))),
            _of(facts, "epoch", "epochs"),
            _of(facts, "step", "steps") or _of(facts, "episode", "episodes"),
            _number(facts.get("seconds_a_step", facts.get("seconds_an_episode")), 2),
            _number(facts.get("loss"), 3),
            _best(facts),
            Text(str(facts.get("host", view.attempt.host if view.attempt else ""))),
            _said(facts),
            duration(view.left),
        )
    return table


def _failures(views: Sequence[JobView]) -> Iterator[Text]:
    """Yield two lines for every failed job: its error, and where its log is."""
    for view in views:
        yield Text(f"{view.job.kind.value} {view.job.name}: {view.error}", "red")
        yield Text(f"  log: {view.log}")


def _end(view: JobView) -> float:
    attempt = view.attempt
    return attempt.begun + (attempt.seconds or 0.0) if attempt else 0.0


def _hours_left(overview: Overview) -> str:
    if len(overview.of(State.DONE)) == len(overview.jobs):
        return "nothing is left"
    if not overview.card_hours and overview.unknown:
        return "time left: unknown; no job of these kinds has been measured"
    cards, one = duration(overview.hours * 3600), duration(overview.card_hours * 3600)
    line = (
        f"time left: {'at least ' if overview.unknown else ''}{cards} on {_counted(overview.cards, 'card')} "
    )
    line += f"({one} of one card in all), by the times of {_counted(overview.measured, 'measured job')}"
    return f"{line}; {_counted(overview.unknown, 'job')} of unknown duration" if overview.unknown else line


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _of(facts: Any, part: str, whole: str) -> str:
    return f"{facts[part]}/{facts[whole]}" if part in facts and whole in facts else ""


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else ""


def _best(facts: Any) -> str:
    best = _number(facts.get("best_score"), 3)
    return f"{best} ({facts.get('best_epoch')})" if best else ""


def _said(facts: Any) -> Text:
    if "age" not in facts:
        return Text("-")
    ago = duration(facts["age"])
    return Text(f"silent {ago}", "red") if facts["age"] > _SILENT else Text(f"{ago} ago")
