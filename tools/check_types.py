"""Check the types of the whole project with mypy: ``python tools/check_types.py``. Arguments go to mypy.

mypy does not follow the search path of ``fewseg``, which its ``__init__.py`` extends. So it is shown a folder
in which the packages lie inside ``fewseg``, as links to the checkout. The settings are in pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".mypy_cache"
PACKAGES = ("model", "dataset", "engine", "util")


def show(view: Path) -> list[str]:
    """Fill the folder with links to the checkout, and return the files and folders in it that are checked."""
    links = {f"fewseg/{name}": ROOT / name for name in PACKAGES}
    links |= {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "fewseg").glob("*.py")}
    links |= {path.name: path for path in (*ROOT.glob("*.py"), ROOT / "tools")}
    for name, target in links.items():
        link = view / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return sorted({Path(name).parts[0] for name in links})


def main() -> None:
    """Run mypy in the view of the checkout, and end with its status."""
    view = CACHE / "view"
    checked = show(view)
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command = [*mypy, "--cache-dir", str(CACHE), *sys.argv[1:], *checked]
    ended = subprocess.run(command, cwd=view, stdout=subprocess.PIPE, text=True)
    for line in ended.stdout.splitlines():
        shown, _, rest = line.removeprefix("fewseg/").partition(":")
        print(line.removeprefix("fewseg/") if rest and not (ROOT / "fewseg" / shown).exists() else line)
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
