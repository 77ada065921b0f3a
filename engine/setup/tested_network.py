"""The network of a test: that of its training, with what it must know of the classes that are tested."""

from __future__ import annotations

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.classes.split import ClassSplit
from fewseg.engine.setup.build import build_few_shot
from fewseg.engine.setup.tested_data import tests_other_data
from fewseg.engine.setup.words import WORDS, word_sources
from fewseg.model.contract import TextInput
from fewseg.model.create import METHODS
from fewseg.model.fewshot import FewShotModel
from fewseg.model.multi_scale import MultiScale
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError
from fewseg.util.word_vectors import HASHED


def build_tested(config: Config, trained: ClassSplit, fold: Fold) -> FewShotModel:
    """Build the few-shot model of a test, with random weights; it segments at all ``query_scales``.

    Args:
        config: config of the test.
        trained: the classes of the training; a base learner knows those among them that are its own.
        fold: the fold that is tested, whose class names are those of the episodes.

    Raises:
        ConfigError: see ``build_few_shot``; or word vectors of the tested classes are missing; or the method
            cannot be tested at several scales.
    """
    model = build_few_shot(_with_tested_words(config), trained, fold.classes.names)
    scales = config.Test_Finetune.query_scales
    if scales == (1.0,):
        return model
    try:
        return MultiScale(model, scales)
    except ValueError as failure:
        key = "Test_Finetune.query_scales"
        raise ConfigError(f"{config.where(key)}: {key}: {failure}") from failure


def _with_tested_words(config: Config) -> Config:
    """Return the config with the word vectors of the tested classes, where the method reads them."""
    method = METHODS.get(config.Method.arch)
    if method is None or method.inputs.text is not TextInput.WORD_VECTORS or not tests_other_data(config):
        return config
    own, tested = word_sources(config), config.Test_Finetune.embeddings
    if tested is None:
        if set(own) - {HASHED}:
            raise ConfigError(
                f"Test_Finetune.embeddings: unset; {' and '.join(own)} has word vectors for the classes of "
                f"{config.Data.data_set} only; make those of the tested classes by tools/word_vectors.py and "
                "name them: --opts Test_Finetune.embeddings PATH"
            )
        return config
    return config.with_values(Method={"options": {**config.Method.options, WORDS: tested}})
