"""The names of classes, and the sources of their word vectors, for methods that read them."""

from __future__ import annotations

from collections.abc import Sequence

from fewseg.model.contract import TextInput
from fewseg.model.fewshot import FewShotModel
from fewseg.util.config import Config
from fewseg.util.errors import UserError
from fewseg.util.word_vectors import HASHED, with_background

WORDS = "embeddings"
"""The option of methods that read word vectors of class names."""


def word_sources(config: Config) -> list[str]:
    """Return the sources of word vectors; none if the option names none."""
    given = config.Method.options.get(WORDS)
    named = list(given) if isinstance(given, list | tuple) else [given]
    sources = [source for source in named if isinstance(source, str)]
    return sources if len(sources) == len(named) else []


def names_with(config: Config, class_names: Sequence[str], name: str | None) -> list[str]:
    """Return the names of all classes for ``build_few_shot``, the background in front.

    Args:
        config: config of a few-shot method.
        class_names: class names of the data set, in the order of their ids, with or without ``background``.
        name: name of the class to be segmented, or None. If it is not in the data set, it is added where any
            name has a word vector.
    """
    names = with_background(class_names)
    if name is None or name in names or set(word_sources(config)) != {HASHED}:
        return names
    return [*names, name]


def class_id_of(config: Config, model: FewShotModel, names: Sequence[str], name: str | None) -> int:
    """Return the id of the class with the name ``name``; 0 for a model that reads no names.

    Args:
        config: config of the model.
        model: the model, built with ``names``.
        names: result of ``names_with``.
        name: name of the class to be segmented; None if the user gave none.

    Raises:
        UserError: the model reads names and there is none, or none with a word vector; or it reads no names.
    """
    arch = config.Method.arch
    if model.meta.inputs.text is TextInput.NONE:
        if name is not None:
            raise UserError(f"--class-name {name}: {arch} does not read names of classes; leave it out")
        return 0
    if name is None:
        raise UserError(f"{arch} reads the name of the class that it segments; give it: --class-name cat")
    if name in names[1:]:  # the background is no class
        return names.index(name, 1)
    raise UserError(
        f"--class-name {name}: {' and '.join(word_sources(config))} has word vectors of the data set's "
        f"classes only; give the nearest of {', '.join(names[1:])}"
    )
