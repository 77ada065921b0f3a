"""Make the thinned records of ``tests/parity/recorded`` of the full set in ``../shared/parity``.

    python tests/parity/thin.py                       # again, of all that is there: gives the same bytes
    python tests/parity/thin.py dcama/resnet50        # a new variant, or one whose records have changed

``storage.py`` says what is kept of an array.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from safetensors.numpy import save

from tests.parity.cases import RECORDED, TABLES, WHOLE, case_names, whole_arrays
from tests.parity.storage import pack


def recorded_variants() -> list[str]:
    """Return the variants that are carried, such as ``bam/resnet50``."""
    return sorted({name.rpartition("/")[0] for name in case_names()})


def thinned_files(variant: str) -> dict[str, bytes]:
    """Return name -> contents of the files of a variant, made of the full set.

    Raises:
        FileNotFoundError: if the full set has no such variant.
    """
    folder = WHOLE / variant
    files = {path.name: compact(path) for path in sorted(folder.glob("*.json"))}
    for path in sorted(folder.glob("*.npz")):
        files[f"{path.stem}.safetensors"] = pack(whole_arrays(path))
    if not files:
        raise FileNotFoundError(f"{folder} holds no recorded case; variants are named like bam/resnet50")
    return files


def compact(path: Path) -> bytes:
    """Return a json file without the white space."""
    return (json.dumps(json.loads(path.read_text()), separators=(",", ":")) + "\n").encode()


def tables_of(variant: str) -> dict[str, bytes]:
    """Return name -> contents of the tables of word vectors that the cases of a variant name."""
    cases = [json.loads(path.read_text()) for path in sorted((WHOLE / variant).glob("*.json"))]
    names = sorted({case["embeddings"] for case in cases if "embeddings" in case})
    folder = WHOLE.parent / TABLES
    return {f"{name}.safetensors": save({"table": np.load(folder / f"{name}.npy")}) for name in names}


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="folders below ../shared/parity")
    for variant in parser.parse_args().variants or recorded_variants():
        try:
            files = thinned_files(variant)
        except FileNotFoundError as error:
            parser.error(str(error))
        shutil.rmtree(RECORDED / variant, ignore_errors=True)  # cases that are gone
        write(RECORDED / variant, files)
        write(RECORDED / TABLES, tables_of(variant))
        print(f"{variant}: {sum(map(len, files.values())) / 1024:.0f} KiB in {len(files)} files")


if __name__ == "__main__":
    main()
