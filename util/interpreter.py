"""Refuses a Python that lacks required packages, in one line that says which Python to use instead.

Scripts import this module before anything outside the standard library.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

_NEEDED = ("torch", "numpy", "cv2", "yaml", "pydantic", "tqdm", "safetensors")
_ROOT = Path(__file__).resolve().parent.parent


def advice(missing: list[str], root: Path = _ROOT) -> str:
    """Return an error message that names the missing packages and says what to do.

    Args:
        missing: names of packages.
        root: the folder of the project, in which ``.venv`` is made.
    """
    python = root / ".venv" / "bin" / "python"
    if python.is_file() and Path(sys.executable) != python:
        remedy = f"use {python}, or first: source {python.with_name('activate')}"
    else:
        remedy = (
            f"install them: pip install -r {root / 'requirements.txt'}, or let ./quickstart.sh make .venv"
        )
    return f"this Python ({sys.executable}) lacks {', '.join(missing)}; {remedy}"


if missing_packages := [name for name in _NEEDED if find_spec(name) is None]:
    print(f"error: {advice(missing_packages)}", file=sys.stderr)
    sys.exit(2)
