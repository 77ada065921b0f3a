"""Segment your own images from your own annotated examples of one class.

    python predict.py --config config/pascal/bam_resnet50.yaml --weight best.safetensors \\
        --support cat1.jpg cat1.png cat2.jpg cat2.png --query photos --out found

Every query gives a mask (0 and 255) and an overlay; ``panel.png`` shows the first one beside the examples.
With ``--opts adapt eftnet`` the model is adapted to every image. An image that cannot be read is reported and
left out; the exit status is 1 then.
"""

from __future__ import annotations

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.reading.mask import read_image
from fewseg.engine.evaluation.measure import made_ready, weight_path
from fewseg.engine.prediction.adapted import AdaptedSegmenter
from fewseg.engine.prediction.predict import (
    Example,
    Segmenter,
    check_outputs,
    output_names,
    query_paths,
    read_example,
)
from fewseg.engine.reports.pictures import overlay, panel
from fewseg.engine.reports.report import write_picture
from fewseg.engine.setup.build import build_adapter, build_few_shot
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.script import log_notices, require_writable, run_script, with_changes
from fewseg.engine.setup.stage import require_few_shot
from fewseg.engine.setup.weights import describe, load_trained
from fewseg.engine.setup.words import class_id_of, names_with
from fewseg.model.contract import AuxiliarySet
from fewseg.util import distributed
from fewseg.util.command_line import add_config, command_line
from fewseg.util.config import Config, load_config
from fewseg.util.errors import DataError, UserError
from fewseg.util.log import get_log, start_log
from fewseg.util.progress import progress

INCOMPLETE = 1
"""Exit status where images could not be read."""

PANEL = "panel.png"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add_config(parser, "what the model was trained by")
    add("--weight", metavar="PATH", help="its checkpoint; the run's best by default")
    add("--support", required=True, nargs="+", metavar="IMAGE MASK", help="examples, each with its mask")
    add("--class", dest="class_id", type=int, metavar="ID", help="the object in masks of several classes")
    add("--class-name", metavar="NAME", help="what the object is called, for methods that read it: mianet")
    add("--auxiliary", metavar="PATH", help="images that show the class, without masks, for fsil")
    add("--query", required=True, metavar="PATH", help="an image, or a folder of images")
    add("--out", required=True, metavar="FOLDER", help="where masks and overlays go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Segment as the command line says."""
    args = parse_arguments(argv)
    if len(args.support) % 2:
        raise UserError(f"--support: {args.support[-1]} has no mask; give pairs of image and mask")
    pairs = list(zip(args.support[::2], args.support[1::2], strict=True))
    opts = with_changes(args.opts, {"shot": len(pairs)})
    weight = ["Test_Finetune.weight", args.weight] if args.weight else []
    config = load_config(args.config, [*weight, *opts])
    require_few_shot(config)
    log = start_log()
    log_notices([config])

    examples = [read_example(*pair, args.class_id) for pair in pairs]
    paths, out = query_paths(args.query), Path(args.out)
    further = query_paths(args.auxiliary) if args.auxiliary else []
    check_outputs(outputs(paths, out), [*args.support, *paths, *further])
    segmenter = build_segmenter(config, examples, [read_image(path) for path in further], args.class_name)
    done, found = segment(segmenter, examples, paths, require_writable(out))
    log.info(
        "%d images segmented from %d examples, the class found in %d; see %s", done, len(examples), found, out
    )
    if done < len(paths):
        log.error("%d of %d images could not be read", len(paths) - done, len(paths))
        sys.exit(INCOMPLETE)


def outputs(paths: Sequence[Path], out: Path) -> list[Path]:
    """Return all files that will be written."""
    names = output_names(paths)
    return [out / PANEL, *(out / f"{name}_{kind}.png" for name in names for kind in ("mask", "overlay"))]


def segment(
    segmenter: Segmenter | AdaptedSegmenter, examples: Sequence[Example], paths: Sequence[Path], out: Path
) -> tuple[int, int]:
    """Segment every image that can be read and write the results.

    Returns:
        How many images were segmented, and in how many of them the class was found.
    """
    done = found = 0
    for path, name in progress(list(zip(paths, output_names(paths), strict=True)), "images"):
        try:
            image = read_image(path)
        except DataError as failure:
            get_log("predict").error("%s", failure)
            continue
        mask = segmenter(image)
        write_picture(out / f"{name}_mask.png", 255 * mask)
        write_picture(out / f"{name}_overlay.png", overlay(image, mask))
        if not done:
            shown = [(example.image, example.mask) for example in examples]
            write_picture(out / PANEL, panel(shown, image, None, mask, title=path.name))
        done += 1
        found += bool(mask.any())
    return done, found


def build_segmenter(
    config: Config, examples: list[Example], auxiliary: list[np.ndarray], class_name: str | None = None
) -> Segmenter | AdaptedSegmenter:
    """Load the model, in the adaptation that the config names, and show it examples and auxiliary images."""
    device = distributed.start()
    fold: Fold = fold_of(config)
    names = names_with(config, fold.classes.names, class_name)
    model = build_few_shot(config, fold.classes, names)
    adapter = build_adapter(config, model)
    class_id = class_id_of(config, model, names, class_name)
    if auxiliary and model.meta.inputs.auxiliary is not AuxiliarySet.CLASS:
        raise UserError(f"--auxiliary: {config.Method.arch} has no use for auxiliary images; leave it out")
    if not auxiliary and model.meta.inputs.auxiliary is AuxiliarySet.CLASS:
        get_log("predict").warning("no --auxiliary: %s goes without its auxiliary set", config.Method.arch)
    path = weight_path(config, fold)
    load_trained(model, path, describe(config, fold.classes))
    get_log("predict").info("%s: trained on %s, fold %d", path, fold.data_set, fold.number)
    made_ready(model, device, adapted=adapter is not None)
    if adapter is None:
        return Segmenter(model, examples, fold.resize, auxiliary, class_id)
    get_log("predict").info("the model is adapted to every image by %s", config.Test_Finetune.adapt)
    return AdaptedSegmenter(adapter, device, examples, fold.resize, auxiliary, class_id)


if __name__ == "__main__":
    run_script(main)
