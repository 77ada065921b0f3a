"""FewSeg: one codebase for few-shot semantic segmentation.

The packages ``fewseg.model``, ``fewseg.dataset``, ``fewseg.engine`` and ``fewseg.util`` are the folders of
these names: in a checkout they lie beside this one, in an installation inside it.
"""

from pathlib import Path

__version__ = "0.1.0"

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "pyproject.toml").is_file() and not (Path(__file__).parent / "model").is_dir():
    __path__.append(str(_CHECKOUT))
