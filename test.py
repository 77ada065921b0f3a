"""Test trained models: folds x shots x seeds -> tables, result files, pictures and a page that shows them.

python test.py --config config/pascal/bam_resnet50.yaml
python test.py --config ... --folds 0 1 2 3 --shots 1 5
python test.py --config ... --folds 0 1 --weight 'models/fold{fold}_shot{shot}.safetensors'
python test.py --config ... --episodes 100 --seeds 321        # shorter than the protocol says
python test.py --config ... --protocol hsnet                  # under another protocol than the training's
python test.py --config ... --generalized                     # base and novel classes at once
"""

from __future__ import annotations

import util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import argparse
from collections.abc import Iterator
from pathlib import Path

from engine.generalized import measure_generalized
from engine.measure import Measurement, measure, write_counts
from engine.report import (
    tables_of,
    write_class_table,
    write_pictures,
    write_report,
    write_results,
    write_tables,
)
from engine.script import configs_of_runs, require_writable, run_script
from util import distributed
from util.config import Config
from util.errors import ConfigError
from util.log import get_log, start_log
from util.run_folder import run_folder
from util.tables import to_terminal


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", required=True, metavar="YAML", help="what the models were trained by")
    add("--folds", nargs="+", type=int, metavar="FOLD", help="folds to test; the config's by default")
    add("--shots", nargs="+", type=int, metavar="K", help="numbers of supports; the config's by default")
    add(
        "--protocol", metavar="NAME", help="what to test under; what the models were trained under by default"
    )
    add("--generalized", action="store_true", help="segment base classes too, with both ways to merge")
    add("--untrained", action="store_true", help="beside the baselines, test the network with random weights")
    add("--episodes", type=int, metavar="N", help="episodes per seed; the protocol's by default")
    add(
        "--episodes-file",
        nargs="+",
        metavar="JSONL",
        help="manifests, one per seed; {fold}, {shot} filled in",
    )
    add("--seeds", nargs="+", type=int, metavar="SEED", help="seeds; the protocol's by default")
    add("--weight", metavar="PATH", help="checkpoint, {fold} and {shot} filled in; the run's best by default")
    add("--out", metavar="FOLDER", help="where results go; below the runs' folder by default")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="changes to the config: cache_gib 8")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Test as the command line says."""
    given = parse_arguments(arguments)
    runs = list(runs_of(given))
    device = distributed.start()
    folder = require_writable(given.out or results_folder(runs))
    log = start_log(folder, "test.log")
    measurements = []
    for config in runs:
        log.info("testing fold %d, %d-shot", config.Data.split, config.Data.shot)
        generalized = config.Test_Finetune.generalized
        found = measure_generalized(config, device) if generalized else [measure(config, device)]
        for measurement in found:
            log_measurement(measurement)
        measurements += found
    if distributed.is_main():
        page = write_all(folder, measurements)
        log.info("results, tables and pictures are in %s; open %s", folder, page)


def runs_of(given: argparse.Namespace) -> Iterator[Config]:
    """Yield one config per fold and shot."""
    chosen = {
        "episodes": given.episodes,
        "seeds": given.seeds,
        "test_protocol": given.protocol,
        "generalized": given.generalized or None,
        "untrained": given.untrained or None,
        "episodes_file": given.episodes_file,
    }
    weight = [] if given.weight is None else ["Test_Finetune.weight", given.weight]
    for config in configs_of_runs(given.config, [*weight, *given.opts], chosen, given.folds, given.shots):
        if config.stage == 1:
            raise ConfigError(
                f"{given.config}: a base learner has no episodes; its training reports its mIoU"
            )
        yield config


def results_folder(runs: list[Config]) -> Path:
    """Return where results go by custom: into the one run's folder, or beside several runs' folders."""
    folders = {run_folder(config) for config in runs}
    return (folders.pop() if len(folders) == 1 else run_folder(runs[0]).parent) / "results"


def log_measurement(measurement: Measurement) -> None:
    """Report one fold and shot."""
    result = measurement.result
    figures = ", ".join(
        f"{name} {100 * value:.2f} ± {100 * result.std[name]:.2f}" for name, value in result.mean.items()
    )
    kind = "" if result.setting == "few-shot" else f", {result.setting}"
    get_log("test").info("fold %d, %d-shot%s: %s", result.fold, result.shot, kind, figures)
    classes = ", ".join(
        f"{name} {'-' if value is None else f'{100 * value:.2f}'}" for name, value in result.class_iou.items()
    )
    get_log("test").info("classes: %s (%.0f s)", classes, result.seconds)
    if result.tested_in_words:
        get_log("test").info("fold %d, %d-shot: %s", result.fold, result.shot, result.tested_in_words)


def write_all(folder: Path, measurements: list[Measurement]) -> Path:
    """Write result files, tables, pictures and the page; print the tables; return the page's path."""
    results = [measurement.result for measurement in measurements]
    baselines = [baseline for measurement in measurements for baseline in measurement.baselines]
    write_results(folder, results)
    write_results(folder / "baselines", baselines)
    write_counts(folder, measurements)
    tables = tables_of(results, baselines)
    write_tables(folder / "tables", tables)
    write_class_table(folder / "tables", [*results, *baselines])
    pictures = []
    for measurement in measurements:
        run = f"fold{measurement.result.fold}_shot{measurement.result.shot}"
        pictures += write_pictures(folder / "pictures" / run, measurement.pictures)
    for table in tables.values():
        get_log("test").info("\n%s", to_terminal(table).rstrip())
    return write_report(folder / "report.html", results, tables, pictures)


if __name__ == "__main__":
    run_script(main)
