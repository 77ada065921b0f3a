"""The short names of the packages in a checkout: ``model`` for ``fewseg.model``, and so with the others.

Where a checkout is on Python's search path, its folder ``model`` can be imported by that name too, as in
``from model import create_model``. The module object is then the same as that of ``fewseg.model``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PREFIX = "fewseg."


def keep_one_module(name: str) -> None:
    """Replace the package that is being imported as ``name``, without its prefix, by the one with the prefix.

    Every package calls this with its ``__name__``; under its full name nothing happens.
    """
    if name.startswith(_PREFIX):
        return
    sys.modules[name] = importlib.import_module(_PREFIX + name)
    if not any(isinstance(finder, _ShortNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ShortNames())


class _ShortNames(MetaPathFinder, Loader):
    """Finds the modules of packages that were imported by their short names under their full ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = fullname.partition(".")[0]
        ours = sys.modules.get(_PREFIX + package)
        if path is None or ours is None or sys.modules.get(package) is not ours:
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # the import system takes what stands in sys.modules after this call
        sys.modules[module.__name__] = importlib.import_module(_PREFIX + module.__name__)
