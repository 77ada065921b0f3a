"""Segment your own images from your own annotated examples of one class.

    python predict.py --config config/pascal/bam_resnet50.yaml --weight best.safetensors \\
        --support cat1.jpg cat1.png cat2.jpg cat2.png --query photos --out found

Every query gives a mask (0 and 255) and an overlay; ``panel.png`` shows the first one beside the examples.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dataset.fold import Fold
from dataset.mask import read_image
from dataset.transform import Resize
from engine.build import build_network
from engine.data import fold_of
from engine.measure import weight_path
from engine.pictures import overlay, panel
from engine.predict import Example, Segmenter, query_paths, read_example
from engine.report import write_picture
from engine.script import require_writable, run_script, with_changes
from engine.weights import describe, load_trained
from model.interface import AuxiliarySet
from util import distributed
from util.config import Config, load_config
from util.errors import UserError
from util.log import get_log, progress, start_log


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", required=True, metavar="YAML", help="what the model was trained by")
    add("--weight", metavar="PATH", help="its checkpoint; the run's best by default")
    add("--support", required=True, nargs="+", metavar="IMAGE MASK", help="examples, each with its mask")
    add("--auxiliary", metavar="PATH", help="images that show the class, without masks, for fsil")
    add("--query", required=True, metavar="PATH", help="an image, or a folder of images")
    add("--out", required=True, metavar="FOLDER", help="where masks and overlays go")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="changes to the config: split 1")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Segment as the command line says."""
    given = parse_arguments(arguments)
    if len(given.support) % 2:
        raise UserError(f"--support: {given.support[-1]} has no mask; give pairs of image and mask")
    pairs = list(zip(given.support[::2], given.support[1::2], strict=True))
    opts = with_changes(given.opts, {"shot": len(pairs)})
    weight = ["Test_Finetune.weight", given.weight] if given.weight else []
    config = load_config(given.config, [*weight, *opts])
    out = require_writable(given.out)
    log = start_log()

    examples = [read_example(*pair) for pair in pairs]
    paths = query_paths(given.query)
    auxiliary = [read_image(path) for path in query_paths(given.auxiliary)] if given.auxiliary else []
    segmenter = build_segmenter(config, examples, auxiliary)
    for path in progress(paths, "images"):
        image = read_image(path)
        mask = segmenter(image)
        write_picture(out / f"{path.stem}_mask.png", 255 * mask)
        write_picture(out / f"{path.stem}_overlay.png", overlay(image, mask))
        if path == paths[0]:
            shown = [(example.image, example.mask) for example in examples]
            write_picture(out / "panel.png", panel(shown, image, None, mask, title=path.name))
    log.info("%d images segmented from %d examples; see %s", len(paths), len(examples), Path(out))


def build_segmenter(config: Config, examples: list[Example], auxiliary: list[np.ndarray]) -> Segmenter:
    """Load the model and show it the examples and the auxiliary images."""
    device = distributed.start()
    fold: Fold = fold_of(config)
    model = build_network(config, fold.split)
    if auxiliary and model.meta.auxiliary is not AuxiliarySet.CLASS:
        raise UserError(f"--auxiliary: {config.Method.arch} has no use for auxiliary images; leave it out")
    if not auxiliary and model.meta.auxiliary is AuxiliarySet.CLASS:
        get_log("predict").warning("no --auxiliary: %s goes without its auxiliary set", config.Method.arch)
    load_trained(model, weight_path(config, fold), describe(config, fold.split))
    resize = Resize(fold.protocol.input_size, fold.protocol.resize)
    return Segmenter(model.to(device), examples, resize, device, auxiliary)


if __name__ == "__main__":
    run_script(main)
