"""Turn a published checkpoint (.pth) into one of ours (.safetensors); its entries tell the method.

python tools/convert_checkpoint.py best.pth --out bam_pascal_split0.safetensors --fold 0
python tools/convert_checkpoint.py encoder.pkl --with relation.pkl --out fss1000.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.engine.setup.script import run_script
from fewseg.model.checkpoint.published import load_strict, to_ours
from fewseg.model.checkpoint.recognise import join_files, recognise
from fewseg.util.checkpoint import load_weights, save_checkpoint
from fewseg.util.command_line import command_line
from fewseg.util.errors import CheckpointError


def convert(
    source: Path, target: Path, facts: dict[str, object], further: Sequence[Path] = ()
) -> dict[str, object]:
    """Write ``source`` as a checkpoint of ours and return its metadata.

    Args:
        source: a published file.
        target: a ``.safetensors`` file.
        facts: what the file does not tell, such as fold and data_set.
        further: the other files of a checkpoint that was published in several.

    Raises:
        CheckpointError: the file cannot be read, fits no known network, or the target cannot be written.
    """
    published = load_weights(source)
    try:
        if further:
            published = join_files([published, *(load_weights(path) for path in further)])
        found = recognise(published)
        entries = to_ours(found.network, published)
        network = found.network.to_empty(device="cpu")
        load_strict(network, entries)
    except ValueError as problem:
        raise CheckpointError(f"{source}: {problem}") from problem
    meta = {
        "arch": found.name,
        "backbone": found.backbone,
        "shot": found.shot,
        "base_classes": found.base_classes,
        "options": dict(found.options),
        "source": source.name,
        **facts,
    }
    save_checkpoint(target, network.state_dict(), meta)
    return meta


def main(argv: list[str] | None = None) -> None:
    """Convert as the command line says."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("source", type=Path, help="published checkpoint")
    add("--with", type=Path, nargs="+", default=[], dest="further", help="its other files, if it has some")
    add("--out", type=Path, help="file to write (default: the source's name, .safetensors)")
    add("--fold", type=int, help="fold it was trained for, kept in the metadata")
    add("--data-set", help="pascal, coco, ...; kept in the metadata")
    args = parser.parse_args(argv)
    target = args.out or args.source.with_suffix(".safetensors")
    facts = {"fold": args.fold, "data_set": args.data_set}
    facts = {name: value for name, value in facts.items() if value is not None}
    meta = convert(args.source, target, facts, args.further)
    told = ", ".join(f"{name} {value}" for name, value in meta.items() if value not in (None, {}))
    print(f"{target}: {told}")


if __name__ == "__main__":
    run_script(main)
