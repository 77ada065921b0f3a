"""Test trained models: folds x shots x seeds -> tables, result files, pictures and a page that shows them.

python test.py --config config/pascal/bam_resnet50.yaml
python test.py --config ... --folds 0 1 2 3 --shots 1 5
python test.py --config ... --folds 0 1 --weight 'models/fold{fold}_shot{shot}.safetensors'
python test.py --config ... --episodes 100 --seeds 321        # shorter than the protocol says
python test.py --config ... --protocol hsnet                  # under another protocol than the training's
python test.py --config ... --generalized                     # base and novel classes at once
python test.py --config ... --data config/_base_/dataset/folder.yaml data_root data/mine    # on other data
python test.py --config ... --visualise 5                     # figures: 5 best, 5 worst, 5 typical episodes

All weights are looked up before anything is measured, and every result is written when it is measured. What
the folder holds already of the same weights, settings and episodes is read; --again measures it anew. A test
that was stopped or killed goes on if it is started again. Shots of one checkpoint share their encodings.
"""

from __future__ import annotations

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from fewseg.engine.evaluation.measure import Measurement
from fewseg.engine.evaluation.plan import Plan, look_up, measure_plans, together
from fewseg.engine.evaluation.record import record, stored_result, write_overview
from fewseg.engine.evaluation.session import Session
from fewseg.engine.evaluation.visualise import visualise
from fewseg.engine.reports.report import Section
from fewseg.engine.setup.interrupt import Check, Interrupted, StopRequest
from fewseg.engine.setup.script import configs_of_runs, log_notices, require_writable, run_script
from fewseg.engine.setup.stage import require_few_shot
from fewseg.util import distributed
from fewseg.util.command_line import add_config, add_runs, command_line, other_data
from fewseg.util.config import Config
from fewseg.util.live import Live
from fewseg.util.lock import lock_folder
from fewseg.util.log import get_log, start_log
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.formats import to_terminal
from fewseg.util.results.result import Result
from fewseg.util.results.tables import Table

_SHOWN = 3
"""Episodes of each kind that --visualise draws by default."""

_PATIENCE = 600.0
"""Seconds to wait for another test that writes the tables of the same folder."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add_config(parser, "what the models were trained by", "cache_gib 8")
    add_runs(parser)
    add = parser.add_argument
    add("--untrained", action="store_true", help="beside the baselines, test the network with random weights")
    add("--episodes-file", nargs="+", metavar="JSONL", help="a manifest per seed; {fold}, {shot} filled in")
    add("--weight", metavar="PATH", help="checkpoint, {fold} and {shot} filled in; the run's best by default")
    add("--out", metavar="FOLDER", help="where results go; below the runs' folder by default")
    add(
        "--visualise",
        nargs="?",
        type=int,
        const=_SHOWN,
        metavar="N",
        help=f"figures of the N best, worst and typical episodes, {_SHOWN} by default, and of encodings",
    )
    add("--again", action="store_true", help="measure anew what the folder of results holds already")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Test as the command line says."""
    args = parse_arguments(argv)
    runs = list(runs_of(args))
    device = distributed.start()
    start_log()
    log_notices(runs)
    plans = [look_up(config) for config in runs]
    folder = ResultFolder(require_writable(args.out or results_folder(plans)))
    log = start_log(folder.path, "test.log")
    with locked(folder, plans), resumable() as check, Live(folder.path) as live:
        session = Session(folder, check, live)
        tested = [
            path
            for group in together(plans)
            for path in test_or_read(group, folder, device, session, again=args.again)
        ]
    for table in tables_with(tested, overview(folder)):
        log.info("\n%s", to_terminal(table).rstrip())
    log.info("results, tables and pictures are in %s; open %s", folder.path, folder.report)


def runs_of(args: argparse.Namespace) -> Iterator[Config]:
    """Yield one config per fold and shot."""
    chosen = {
        "episodes": args.episodes,
        "seeds": args.seeds,
        **other_data(args.data),
        "test_protocol": args.protocol,
        "generalized": args.generalized or None,
        "untrained": args.untrained or None,
        "episodes_file": args.episodes_file,
        "visualise": args.visualise,
    }
    weight = [] if args.weight is None else ["Test_Finetune.weight", args.weight]
    for config in configs_of_runs(args.config, [*weight, *args.opts], chosen, args.folds, args.shots):
        require_few_shot(config)
        yield config


def results_folder(plans: Sequence[Plan]) -> Path:
    """Return where results go by custom: into the one run's folder, or beside several runs' folders."""
    folders = {plan.folder for plan in plans}
    return (folders.pop() if len(folders) == 1 else plans[0].folder.parent) / "results"


@contextmanager
def locked(folder: ResultFolder, plans: Sequence[Plan]) -> Iterator[None]:
    """Keep other tests from measuring the same results into the same folder."""
    files = dict.fromkeys(folder.file_of(result) for plan in plans for result in plan.results)
    with ExitStack() as locks:
        for file in files:
            locks.enter_context(lock_folder(folder.pictures_of(file), "testing"))
        yield


def test_or_read(
    plans: Sequence[Plan], folder: ResultFolder, device: torch.device, session: Session, *, again: bool
) -> Iterator[Path]:
    """Test one checkpoint with some numbers of shots, except for those that were tested before.

    Yields:
        The files of the results.
    """
    log, left = get_log("test"), []
    for plan in plans:
        stored = [] if again else plan.stored(folder)
        for path, wanted in zip(stored, plan.results, strict=False):
            log.info("%s: tested before; %s is read. --again measures it anew", plan, path)
            log_result(stored_result(path, wanted))
        if stored:
            draw(plan, folder, stored, device)
        yield from stored
        left += [] if stored else [plan]
    for plan in left:
        result = plan.results[0]
        log.info("testing %s: %s, with the weights %s", plan, result.method, result.checkpoint)
    measured = measure_plans(left, device, session) if left else ()
    for plan, measurements in zip(left, measured, strict=True):
        results = [measurement.result for measurement in measurements]
        if distributed.is_main():
            write(measurements, folder)
            baselines = [baseline for measurement in measurements for baseline in measurement.baselines]
            session.forget([*results, *baselines])
        overview(folder)
        files = [folder.find(result) or folder.file_of(result) for result in results]
        draw(plan, folder, files, device)
        yield from files


def write(measurements: Sequence[Measurement], folder: ResultFolder) -> None:
    """Write the files of measurements."""
    for measurement in measurements:
        log_result(measurement.result)
        for path in record(folder, measurement):
            get_log("test").info("moved what was there of other weights or settings to %s", path)


def draw(plan: Plan, folder: ResultFolder, files: Sequence[Path], device: torch.device) -> None:
    """Write the figures of a plan's results if its config asks for them, in the first process."""
    if distributed.is_main():
        visualise(plan.config, folder, files, device)


@contextmanager
def resumable() -> Iterator[Check]:
    """A context in which Ctrl-C and SIGTERM stop the test where its counts have been kept."""
    with StopRequest() as stop:

        def check() -> None:
            try:
                stop.check()
            except Interrupted as request:
                raise Interrupted(f"{request}; the counts are kept, start the test again to go on") from None

        try:
            yield check
        except RuntimeError as error:
            if distributed.is_connection_error(error):
                check()  # the other processes were stopped too
            raise


def overview(folder: ResultFolder) -> dict[str, Section]:
    """Write the tables and the page of all results in the folder, one process after the other."""
    with lock_folder(folder.tables, "writing tables", wait=_PATIENCE):
        return write_overview(folder) if distributed.is_main() else {}


def tables_with(tested: Sequence[Path], sections: Mapping[str, Section]) -> list[Table]:
    """Return the tables that show any of the results just tested."""
    shown = [section for section in sections.values() if section.results.keys() & set(tested)]
    return [table for section in shown for table in section.tables.values()]


def log_result(result: Result) -> None:
    """Report one fold and shot."""
    figures = ", ".join(
        f"{name} {100 * value:.2f} ± {100 * result.std[name]:.2f}" for name, value in result.mean.items()
    )
    kind = "" if result.setting == "few-shot" else f", {result.setting}"
    kind += f", trained on {result.trained_on}, tested on {result.data_set}" if result.trained_on else ""
    get_log("test").info("fold %d, %d-shot%s: %s", result.fold, result.shot, kind, figures)
    classes = ", ".join(
        f"{name} {'-' if value is None else f'{100 * value:.2f}'}" for name, value in result.class_iou.items()
    )
    get_log("test").info("classes: %s (%.0f s)", classes, result.seconds)
    if result.tested_in_words:
        get_log("test").info("fold %d, %d-shot: %s", result.fold, result.shot, result.tested_in_words)


if __name__ == "__main__":
    run_script(main)
