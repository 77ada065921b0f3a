"""Carry out a study: from one file to all trainings and tests, and to the tables of their results.

python study.py plan config/studies/shapes.yaml          # the jobs, and what is left
python study.py run config/studies/shapes.yaml --slots 2
python study.py run config/studies/shapes.yaml --on slurm
python study.py status config/studies/shapes.yaml        # what the running jobs do, on one screen
python study.py table config/studies/shapes.yaml
python study.py commands config/studies/shapes.yaml      # the same jobs as plain shell lines
python study.py clean                                    # remove what no study names any more, after asking

A study that was stopped, or of which some jobs failed, goes on when it is run again. See docs/studies.md.
"""

from __future__ import annotations

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import argparse
import shlex
import signal
import sys
from pathlib import Path

from fewseg.engine.setup.script import run_script
from fewseg.engine.study.cleaning.ask import clean
from fewseg.engine.study.cleaning.copies import keep_copy, study_folder
from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import StudyJobs
from fewseg.engine.study.description.study_file import read_study
from fewseg.engine.study.progress.estimate import Estimates
from fewseg.engine.study.progress.overview import overview_of
from fewseg.engine.study.progress.screen import show_plan, show_status, watch
from fewseg.engine.study.running.local import run_local, usual_slots
from fewseg.engine.study.running.state import State, states_of
from fewseg.engine.study.running.work import shell_command
from fewseg.engine.study.tables.files import write_study_tables
from fewseg.engine.study.tables.table import tables_of
from fewseg.util.command_line import command_line
from fewseg.util.log import get_log, start_log
from fewseg.util.results.formats import FORMATS

FAILED = 1
"""Exit status while a job of the study has failed."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, about: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=about, description=about)
        sub.add_argument("study", metavar="FILE", help="the study file")
        return sub

    plan = action("plan", "Show the jobs, how far they are, and what is left in hours.")
    plan.add_argument("--jobs", action="store_true", help="list all jobs")
    status = action("status", "Show what the running jobs do, on a screen that refreshes until Ctrl-C.")
    status.add_argument("--once", action="store_true", help="print it once")
    for sub in (plan, status):
        sub.add_argument(
            "--slots", type=int, metavar="N", help="cards for the hours left; all GPUs by default"
        )
    run = action("run", "Carry out what is not done.")
    run.add_argument(
        "--on",
        choices=("local", "slurm"),
        default="local",
        help="this machine (local, the default) or a cluster",
    )
    run.add_argument("--slots", type=int, metavar="N", help="jobs at a time; one per GPU by default")
    run.add_argument("--no-wait", action="store_true", help="with --on slurm: submit the jobs, and end")
    table = action("table", "Write the tables, complete or not, and print them.")
    table.add_argument(
        "--format", choices=FORMATS, default="terminal", help="what is printed (default: terminal)"
    )
    table.add_argument("--out", type=Path, metavar="FOLDER", help="where files go; by default studies/NAME")
    action("commands", "Print the jobs as shell lines in an order in which they can run.")
    about = "Remove what no study of a folder names, after asking."
    cleaning = actions.add_parser("clean", help=about, description=about)
    cleaning.add_argument(
        "study", nargs="*", metavar="FILE", help="studies of the folders to clean (default: exp)"
    )
    cleaning.add_argument("--yes", action="store_true", help="remove without asking")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Do what the command line says."""
    args = parse_arguments(argv)
    if args.action == "clean":
        clean(args.study, lambda: args.yes or confirmed())
        return
    if argv is None and args.action in ("plan", "table", "commands"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # to end silently with a reader such as head
    jobs = jobs_of(read_study(args.study))
    ACTIONS[args.action](jobs, args)


def plan(jobs: StudyJobs, args: argparse.Namespace) -> None:
    """Show the jobs, how far they are, and what is left in hours."""
    overview = overview_of(jobs, args.slots or usual_slots())
    show_plan(overview, args.jobs)
    if overview.of(State.FAILED):
        sys.exit(FAILED)


def status(jobs: StudyJobs, args: argparse.Namespace) -> None:
    """Show what the running jobs do."""
    slots = args.slots or usual_slots()
    if args.once:
        show_status(overview_of(jobs, slots))
    else:
        watch(lambda: overview_of(jobs, slots))


def run(jobs: StudyJobs, args: argparse.Namespace) -> None:
    """Carry out what is not done."""
    keep_copy(jobs.study)
    start_log()
    if args.on == "slurm":
        from fewseg.engine.study.slurm.submit import run_slurm  # submitit is of no use elsewhere

        errors = run_slurm(jobs, wait=not args.no_wait)
    else:
        estimates = Estimates.read(jobs, states_of(jobs))
        errors = run_local(jobs, args.slots, estimates.seconds)
    for key, error in errors.items():
        get_log("study").error("%s: %s", jobs.jobs[key].name, error)
    if errors:
        sys.exit(FAILED)


def table(jobs: StudyJobs, args: argparse.Namespace) -> None:
    """Write the tables in every format, and print them in one."""
    tables = tables_of(jobs)
    page = write_study_tables(args.out or study_folder(jobs.study), jobs.study, tables)
    for one in tables.values():
        print(FORMATS[args.format][1](one))
    print(f"these tables are in {page.parent}; open {page}", file=sys.stderr)


def commands(jobs: StudyJobs, args: argparse.Namespace) -> None:
    """Print the jobs as shell lines."""
    for job in jobs.jobs.values():
        print(shlex.join(shell_command(job)))


def confirmed() -> bool:
    """Ask whether to remove what was listed; no, where nobody can answer."""
    if not sys.stdin.isatty():
        print("there is no terminal to ask at; give --yes to remove all this", file=sys.stderr)
        return False
    return input("remove? [y/N] ").strip().lower() in ("y", "yes")


ACTIONS = {"plan": plan, "status": status, "run": run, "table": table, "commands": commands}

if __name__ == "__main__":
    run_script(main)
