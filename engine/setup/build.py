"""Build the network of a config, and its test-time adaptation. No method is named here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Protocol

from fewseg.dataset.classes.split import ClassSplit
from fewseg.engine.setup.protocols import test_protocol
from fewseg.engine.setup.stage import require_few_shot, trains_base_learner
from fewseg.engine.setup.words import WORDS, word_sources
from fewseg.model import create_adapter, create_base_learner, create_model
from fewseg.model.contract import Backbone, Episode, Map, Network, Prediction, SameSize, TextInput
from fewseg.model.create import METHODS
from fewseg.model.fewshot import FewShotModel
from fewseg.model.options import OptionError
from fewseg.util.config import Config
from fewseg.util.config.schema import keys_marked
from fewseg.util.config.types import METHOD_OPTION
from fewseg.util.errors import ConfigError
from fewseg.util.log import get_log
from fewseg.util.word_vectors import load_word_vectors

_AUX_WEIGHTS = ("aux_weight1", "aux_weight2")
"""Published keys for the weights of the losses in addition to an ensemble's."""


def build_network(config: Config, split: ClassSplit) -> Network:
    """Build the base learner or few-shot model that the config describes, with random weights.

    Args:
        config: config of a base learner or of a few-shot method.
        split: the classes of the fold.

    Raises:
        ConfigError: a name or an option does not exist, or parts cannot be combined.
    """
    if not trains_base_learner(config):
        return build_few_shot(config, split)
    method = config.Method
    with _refusals(config):
        learner = create_base_learner(
            method.arch,
            backbone=method.backbone,
            classes=len(split.base) + 1,
            backbone_options=method.backbone_options,
        )
    _check_sides(config, learner.backbone)
    return learner


def build_few_shot(
    config: Config, split: ClassSplit, class_names: Sequence[str] | None = None
) -> FewShotModel:
    """Build the few-shot model that the config describes, with random weights.

    Args:
        config: config of a few-shot method.
        split: the classes of the fold.
        class_names: class names for methods that read them; by default those of ``split``.

    Raises:
        ConfigError: see ``build_network``; or the config is a base learner's.
    """
    require_few_shot(config)
    method, data, train = config.Method, config.Data, config.Train
    weights = {key: getattr(train, key) for key in _AUX_WEIGHTS if getattr(train, key) is not None}
    with _refusals(config):
        model = create_model(
            method.arch,
            backbone=method.backbone,
            shot=data.shot,
            base_classes=len(split.base),
            image_size=data.train_h,
            backbone_options=method.backbone_options,
            ensemble_options=method.ensemble_options,
            aux_weights=tuple(weights.get(key, 1.0) for key in _AUX_WEIGHTS),
            **_chosen_parts(config),
            **_method_options(config, class_names or split.names),
        )
    _check_sides(config, model.backbone)
    _check_same_size(config, model.meta.inputs.same_size)
    if train.fix_bn is not None:
        model.meta.learning = model.meta.learning.with_stored_statistics(train.fix_bn)
    for key in weights if model.ensemble is None else ():
        _tell_unused(config, "Train", key)
    return model


def _check_sides(config: Config, backbone: Backbone) -> None:
    """Raise ConfigError if the backbone cannot process the image sizes of training or testing."""
    spec = backbone.spec
    if spec.side_multiple == 1:
        return
    protocol = test_protocol(config)
    sides = {"Data.train_h": config.Data.train_h, "Data.val_size": protocol.input_size}
    for key, side in sides.items():
        if refused := spec.refused_side(side):
            raise ConfigError(f"{config.where(key)}: {key}: {refused}")
    if protocol.resize == "native":
        raise ConfigError(
            f"{config.where('Data.protocol')}: Data.protocol: {protocol.name} tests images at their own "
            f"size, and {spec.name} needs multiples of {spec.side_multiple} pixels; set "
            "Data.protocol_options.resize letterbox"
        )


def _check_same_size(config: Config, same_size: SameSize) -> None:
    """Raise ConfigError if images are tested at their own sizes by a method that needs equal ones."""
    protocol = test_protocol(config)
    several = same_size is SameSize.SUPPORTS and config.Data.shot > 1
    if protocol.resize == "native" and (several or same_size is SameSize.ALL):
        key = "Data.protocol" if config.Test_Finetune.test_protocol is None else "Test_Finetune.test_protocol"
        images = "several supports" if several else "query and supports"
        raise ConfigError(
            f"{config.where(key)}: {key}: {protocol.name} tests images at their own size, and "
            f"{config.Method.arch} needs {images} of one size; set Data.protocol_options.resize letterbox"
        )


@contextmanager
def _refusals(config: Config) -> Iterator[None]:
    """Turn a ValueError of building a network into a ConfigError with its file, line and key."""
    try:
        yield
    except ValueError as failure:
        key = _key_of(failure, config)
        raise ConfigError(f"{config.where(key)}: {key}: {failure}") from failure


class Adapter(Protocol):
    """A model that is adapted to each episode that it segments.

    Attributes:
        oracle: whether it uses the query's ground truth, which results must state.
        rounds: number of rounds, whose predictions are the part ``ROUND_LOGITS`` of each prediction.
        maps: the parts of its predictions that figures show; see ``Published.maps``.
    """

    oracle: bool
    rounds: int

    @property
    def maps(self) -> tuple[Map, ...]:
        """See above."""

    def __call__(self, episode: Episode) -> Prediction:
        """Segment the episode and restore the model."""


def build_adapter(config: Config, model: FewShotModel) -> Adapter | None:
    """Wrap ``model`` in the adaptation that the config names; None where it names none.

    Raises:
        ConfigError: the adaptation or an option of it does not exist, or the method or the kind of test
            cannot be combined with it.
    """
    test = config.Test_Finetune
    if test.adapt is None:
        if test.adapt_options:
            get_log("test").info("Test_Finetune.adapt_options have no effect: adapt is not set")
        return None
    _require_adaptable_test(config)
    try:
        return create_adapter(test.adapt, model, **test.adapt_options)
    except ValueError as failure:
        key = "Test_Finetune.adapt"
        if isinstance(failure, OptionError) and failure.key.startswith("options."):
            key += f"_{failure.key}"
        raise ConfigError(f"{config.where(key)}: {key}: {failure}") from failure


def _require_adaptable_test(config: Config) -> None:
    """Raise ConfigError if the kind of test cannot be combined with an adaptation."""
    test, protocol = config.Test_Finetune, test_protocol(config)
    if test.query_scales != (1.0,):
        raise ConfigError(
            f"{config.where('Test_Finetune.query_scales')}: Test_Finetune.query_scales: several scales "
            f"cannot be combined with adapt: {test.adapt}, which learns from one size of the query; leave "
            "out one of the two keys"
        )
    if test.precision != "float32":
        raise ConfigError(
            f"{config.where('Test_Finetune.precision')}: Test_Finetune.precision: {test.precision} cannot be "
            f"combined with adapt: {test.adapt}, which learns from the predictions and whose gradients need "
            "float32; leave out one of the two keys"
        )
    if config.Data.ways > 1:
        raise ConfigError(
            f"{config.where('Data.ways')}: Data.ways: {config.Data.ways} ways cannot be combined with adapt: "
            f"{test.adapt}, which adapts to one way at a time; set ways 1"
        )
    if protocol.resize == "native":
        key = "Data.protocol" if test.test_protocol is None else "Test_Finetune.test_protocol"
        raise ConfigError(
            f"{config.where(key)}: {key}: {protocol.name} tests images at their own size, and adapt: "
            f"{test.adapt} needs query and supports of one size; set Data.protocol_options.resize letterbox"
        )


def _key_of(failure: ValueError, config: Config) -> str:
    """Return the config key that an error is about, or the method's key if the error does not name one."""
    key = failure.key if isinstance(failure, OptionError) else "arch"
    flat = [path for path in keys_marked(METHOD_OPTION) if path.endswith(f".{key.removeprefix('options.')}")]
    named = [name for name in (f"Method.{key}", *flat) if config.where(name) != "default"]
    return named[0] if named else f"Method.{key}"


def _tell_unused(config: Config, section: str, key: str) -> None:
    get_log("engine").info("%s.%s has no effect on %s", section, key, config.Method.arch)


def _chosen_parts(config: Config) -> dict[str, Any]:
    """Return the parts that the config sets; the method has defaults for the others."""
    method = config.Method
    chosen = {"base": method.base, "ensemble": method.ensemble, "low_fea": method.low_fea}
    return {key: None if value == "none" else value for key, value in chosen.items() if value is not None}


def _method_options(config: Config, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the method's options from its flat published keys, overridden by ``Method.options``.

    Word vectors are ``hashed``, the path of a table or a list of these in the config; they become one vector
    per class.
    """
    method = METHODS.get(config.Method.arch)
    known = {field.name for field in fields(method.Options)} if method is not None else set()
    options: dict[str, Any] = {}
    for section, key in (path.split(".") for path in sorted(keys_marked(METHOD_OPTION))):
        value = getattr(getattr(config, section), key)
        if value is not None and key in known:
            options[key] = value
        elif value is not None:
            _tell_unused(config, section, key)
    options |= config.Method.options
    reads_words = method is not None and method.inputs.text is TextInput.WORD_VECTORS
    if reads_words and (sources := word_sources(config)):
        options[WORDS] = load_word_vectors(sources, class_names)
    return options
