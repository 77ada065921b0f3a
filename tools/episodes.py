"""Write, show and verify manifests: the test episodes of a seed in one file, for every method and machine.

python tools/episodes.py write --config config/pascal/bam_resnet50.yaml --folds 0 1 2 3 --out episodes
python tools/episodes.py write --config ... --protocol hsnet --hsnet-list splits/pascal/val/fold{fold}.txt
python tools/episodes.py show episodes/pascal_bam_fold0_1shot_seed510.jsonl
python tools/episodes.py verify episodes/*.jsonl                    # the files alone
python tools/episodes.py verify episodes/*.jsonl --config ...       # against images and masks as well

``test.py --episodes-file FILE ...`` takes them, one per seed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest, read_manifest, test_episodes
from fewseg.dataset.episodes.manifest_check import check_manifest
from fewseg.dataset.lists.hsnet_lists import read_hsnet_list
from fewseg.engine.setup.data import test_fold_of
from fewseg.engine.setup.script import configs_of_runs, run_script, with_changes
from fewseg.engine.setup.weights import fill
from fewseg.util.command_line import add_config, add_runs, command_line, other_data
from fewseg.util.config import Config, load_config
from fewseg.util.errors import UserError


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="draw episodes and write a file per fold, shot and seed")
    add_config(write, "data set, fold, shot and protocol")
    add_runs(write)
    add = write.add_argument
    add("--hsnet-list", metavar="PATH", help="draw from a fixed list of HSNet; {fold} filled in")
    add("--out", default="episodes", metavar="FOLDER", help="where the files go (default: episodes)")
    show = commands.add_parser("show", help="say what files hold")
    show.add_argument("files", nargs="+", metavar="JSONL")
    show.add_argument("--first", type=int, default=5, metavar="N", help="episodes to print (default: 5)")
    verify = commands.add_parser("verify", help="check hashes and, with a config, images and masks")
    verify.add_argument("files", nargs="+", metavar="JSONL")
    add_config(verify, "whose data the episodes must fit", required=False)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write, show or verify manifests, as the command line says."""
    args = parse_arguments(argv)
    if args.command == "write":
        for config in runs_of(args):
            for manifest in drawn(config, args.hsnet_list):
                path = Path(args.out) / file_name(manifest)
                manifest.write(path)
                print(f"{path}: {len(manifest)} episodes, {manifest.hash[:16]}")
    elif args.command == "show":
        for path in args.files:
            print(described(read_manifest(path), args.first))
    else:
        verify(args)


def runs_of(args: argparse.Namespace) -> Iterator[Config]:
    """Return a config per fold and shot."""
    chosen = {
        "episodes": args.episodes,
        "seeds": args.seeds,
        **other_data(args.data),
        "test_protocol": args.protocol,
        "generalized": args.generalized or None,
    }
    return configs_of_runs(args.config, args.opts, chosen, args.folds, args.shots)


def drawn(config: Config, hsnet_list: str | None) -> Iterator[Manifest]:
    """Draw the episodes of every seed, from the fold's own lists or from one of HSNet's."""
    fold, data = test_fold_of(config), config.Data
    for seed in fold.protocol.seeds:
        if hsnet_list is None:
            generalized = config.Test_Finetune.generalized
            yield fold.manifest(seed, data.shot, ways=data.ways, generalized=generalized)
            continue
        lists, order = read_hsnet_list(fill(hsnet_list, config), fold)
        yield test_episodes(
            lists,
            data_set=fold.data_set,
            fold=fold.number,
            protocol=fold.protocol.name,
            seed=seed,
            shot=data.shot,
            ways=data.ways,
            episodes=fold.protocol.episodes,
            query_order=order,
        )


def file_name(manifest: Manifest) -> str:
    """Return a file name that is unique to the manifest's settings."""
    parts = [manifest.data_set, manifest.protocol, f"fold{manifest.fold}", f"{manifest.shot}shot"]
    parts += [f"{manifest.ways}way"] if manifest.ways > 1 else []
    parts += ["generalised"] if manifest.generalized else []
    return "_".join([*parts, f"seed{manifest.seed}"]) + ".jsonl"


def described(manifest: Manifest, first: int) -> str:
    """Return a description of a manifest's content."""
    header = ", ".join(f"{key} {value}" for key, value in manifest.header.items())
    queries = Counter(spec.query for spec in manifest)
    supports = Counter(name for spec in manifest for way in spec.supports for name in way)
    classes = Counter(class_id for spec in manifest for class_id in spec.class_ids)
    lines = [
        header,
        f"hash {manifest.hash}",
        f"{len(manifest)} episodes of {len(queries)} queries and {len(supports)} support images",
        "class: episodes  " + ", ".join(f"{c}: {n}" for c, n in sorted(classes.items())),
    ]
    for number, spec in enumerate(manifest.episodes[:first], 1):
        ways = "; ".join(
            f"{class_id} <- {', '.join(names)}"
            for class_id, names in zip(spec.class_ids, spec.supports, strict=True)
        )
        lines.append(f"{number}: {spec.query}, {ways}")
    return "\n".join(lines)


def verify(args: argparse.Namespace) -> None:
    """Check every file and report all that are wrong.

    Raises:
        UserError: a file is wrong.
    """
    folds: dict[int, Fold] = {}
    wrong = []
    for path in args.files:
        try:
            manifest = read_manifest(path)
            if args.config:
                if manifest.fold not in folds:
                    opts = with_changes(args.opts, {"split": manifest.fold})
                    folds[manifest.fold] = test_fold_of(load_config(args.config, opts))
                check_manifest(
                    manifest,
                    folds[manifest.fold],
                    path,
                    shot=manifest.shot,
                    ways=manifest.ways,
                    generalized=manifest.generalized,
                )
        except UserError as failure:
            print(failure, file=sys.stderr)
            wrong.append(path)
        else:
            print(f"{path}: {len(manifest)} episodes, in order, {manifest.hash[:16]}")
    if wrong:
        raise UserError(f"{len(wrong)} of {len(args.files)} manifests are wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    run_script(main)
