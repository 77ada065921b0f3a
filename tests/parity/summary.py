"""A pytest plugin that says at the end of a run how many recorded cases hold."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import pytest

from tests.parity.cases import cases_read

NOTE = "recorded cases"
"""The property of a test's report that lists the cases which the test compared."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    cases_read.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        item.user_properties.append((NOTE, sorted(cases_read)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, so that ``-m parity`` selects it."""
    for item in items:
        if "tests/parity/" in item.path.as_posix():
            item.add_marker("parity")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed, failed = set(), set()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            if getattr(report, "when", None) == "call":
                cases = dict(report.user_properties).get(NOTE, ())
                (passed if outcome == "passed" else failed).update(map(tuple, cases))
    if passed | failed:
        terminalreporter.write_line(report_of(passed - failed, failed))


def report_of(holding: Iterable[tuple[str, bool]], failed: Iterable[tuple[str, bool]]) -> str:
    """Return the line of the summary from cases as (name, whether the full set was compared too)."""
    line = f"parity: {tally(name for name, _ in holding)} hold (thinned records)"
    whole = [name for name, compared in holding if compared]
    if whole:
        line += f", {tally(whole)} (full set)"
    names = ", ".join(sorted(name for name, _ in failed))
    return line + (f"; these do not: {names}" if names else "")


def tally(names: Iterable[str]) -> str:
    """Return a count by cases and methods, such as ``5 cases of 2 methods and 1 of the data``."""
    methods = [name.partition("/")[0] for name in names]
    data = methods.count("data")
    counted = f"{_number(len(methods) - data, 'case')} of {_number(len(set(methods) - {'data'}), 'method')}"
    return counted + (f" and {data} of the data" if data else "")


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")
