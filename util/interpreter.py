"""Refuses a Python without the requirements in one line that says which one to use instead.

Scripts import this module before anything that is not in the standard library.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

_NEEDED = ("torch", "numpy", "cv2", "yaml", "pydantic", "tqdm", "safetensors")
_ROOT = Path(__file__).resolve().parent.parent


def advice(missing: list[str], root: Path = _ROOT) -> str:
    """Return what to do where packages are missing.

    Args:
        missing: names of packages.
        root: of the project, where ``.venv`` is made.
    """
    found = root / ".venv" / "bin" / "python"
    if found.is_file() and Path(sys.executable) != found:
        cure = f"use {found}, or first: source {found.with_name('activate')}"
    else:
        cure = f"install them: pip install -r {root / 'requirements.txt'}, or let ./quickstart.sh make .venv"
    return f"this Python ({sys.executable}) lacks {', '.join(missing)}; {cure}"


if lacking := [name for name in _NEEDED if find_spec(name) is None]:
    print(f"error: {advice(lacking)}", file=sys.stderr)
    sys.exit(2)
