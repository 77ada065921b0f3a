"""Label the training images of a fold with latent classes, for ``mlc-reconstruction`` (docs/methods.md).

python tools/mine_latent_classes.py --config config/pascal/mlc_resnet50.yaml --folds 0 1 2 3
python train.py --config config/pascal/mlc-reconstruction_resnet50.yaml --opts split 0

The published code has no such step: clusters, labels and their use are this project's reconstruction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.engine.evaluation.measure import weight_path
from fewseg.engine.mining.mine import Miner, MiningSettings, write_mined
from fewseg.engine.prediction.predict import query_paths
from fewseg.engine.setup.build import build_few_shot
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.run_path import run_folder
from fewseg.engine.setup.script import log_notices, require_writable, run_script, with_changes
from fewseg.engine.setup.stage import require_few_shot
from fewseg.engine.setup.weights import describe, fill, load_trained
from fewseg.util import distributed
from fewseg.util.checkpoint import file_hash
from fewseg.util.command_line import add_config, command_line
from fewseg.util.config import Config, load_config
from fewseg.util.errors import UserError
from fewseg.util.lock import lock_folder
from fewseg.util.log import start_log


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add_config(parser, "of the trained baseline, whose features are clustered", "shot 5")
    add = parser.add_argument
    add("--folds", nargs="+", type=int, metavar="FOLD", help="the config's by default")
    add("--weight", metavar="PATH", help="checkpoint, {fold} and {shot} filled in; the run's best by default")
    add("--out", metavar="FOLDER", help="likewise; 'mined' in the run's folder by default")
    add("--clusters", type=int, default=100, metavar="N", help="latent classes (default: 100)")
    add("--seed", type=int, default=0, help="of the clustering (default: 0)")
    add("--drop", type=float, default=0.0, metavar="SHARE", help="of least certain pixels to leave out")
    add("--protect-base", action="store_true", help="let pixels of base classes keep a label of their own")
    add("--extra", metavar="FOLDER", help="further images, without any label, to be labelled too")
    add("--overwrite", action="store_true", help="replace labels that were mined otherwise")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Mine as the command line says."""
    args = parse_arguments(argv)
    if args.clusters < 1:
        raise UserError(f"--clusters: must be at least 1, got {args.clusters}")
    if not 0 <= args.drop < 1:
        raise UserError(f"--drop: must be at least 0 and less than 1, got {args.drop}")
    settings = MiningSettings(args.clusters, args.seed, args.drop, args.protect_base)
    weight = ["Test_Finetune.weight", args.weight] if args.weight else []
    opts = [*weight, *args.opts]
    config = load_config(args.config, opts)
    require_few_shot(config)
    log = start_log()
    log_notices([config])
    for number in args.folds or [config.Data.split]:
        config = load_config(args.config, with_changes(opts, {"split": number}))
        folder = fill(args.out, config) if args.out else run_folder(config) / "mined"
        extra = query_paths(args.extra) if args.extra else []
        with lock_folder(require_writable(folder), "mining"):
            count = mine(config, folder, settings, extra, overwrite=args.overwrite)
        log.info("fold %d: labels of %d images are in %s", number, count, folder)


def mine(
    config: Config, folder: Path, settings: MiningSettings, extra: Sequence[Path], *, overwrite: bool
) -> int:
    """Mine the training images of the config's fold, and ``extra`` ones, and return their number."""
    device = distributed.start()
    fold = fold_of(config)
    model = build_few_shot(config, fold.classes)
    path = weight_path(config, fold)
    facts = describe(config, fold.classes)
    load_trained(model, path, facts)
    miner = Miner(model.to(device), fold, config.Data.shot, settings, extra)
    kept = {key: facts[key] for key in ("arch", "backbone", "data_set", "fold", "shot")}
    return write_mined(miner, folder, {**kept, "checkpoint_hash": file_hash(path)}, overwrite=overwrite)


if __name__ == "__main__":
    run_script(main)
