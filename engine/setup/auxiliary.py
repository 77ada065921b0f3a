"""The source of the auxiliary images that the config's method can use."""

from __future__ import annotations

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.lists.image_lists import EpisodeLists
from fewseg.dataset.loading.auxiliary import AuxiliarySource, ClassSets
from fewseg.dataset.loading.mined import FACTS, MinedImages
from fewseg.engine.setup.weights import fill
from fewseg.model.contract import AuxiliarySet
from fewseg.model.create import METHODS
from fewseg.util.checkpoint import file_hash
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError
from fewseg.util.log import get_log


def training_auxiliary(config: Config, fold: Fold, lists: EpisodeLists) -> AuxiliarySource | None:
    """Return the source of the training episodes' auxiliary images; None where they have none.

    Raises:
        ConfigError: the method cannot use them, or the config does not name their folder.
        DataError: there are too few images, or the mined labels are missing or of another fold.
    """
    kind, data = _kind(config), config.Data
    if data.auxiliary == 0:
        return None
    if kind is AuxiliarySet.CLASS:
        return _class_sets(config, lists)
    if data.mined_labels is None:
        raise ConfigError(
            f"{config.where('Data.mined_labels')}: Data.mined_labels: unset; make mined labels by "
            "tools/mine_latent_classes.py and name their folder, or set auxiliary 0"
        )
    expected = {"data_set": data.data_set, "fold": data.split}
    folder = fill(data.mined_labels, config)
    return MinedImages.open(folder, data.auxiliary, expected, lists.source)


def mined_labels_hash(config: Config) -> str | None:
    """Return the SHA-256 of the description of the mined labels that a training uses; None without them."""
    labels = config.Data.mined_labels
    if labels is None or config.Data.auxiliary == 0 or _kind(config) is not AuxiliarySet.MINED:
        return None
    return file_hash(fill(labels, config) / FACTS)


def test_auxiliary(config: Config, fold: Fold) -> ClassSets | None:
    """Return the source of the test episodes' auxiliary images; None where they have none."""
    if _kind(config) is not AuxiliarySet.CLASS or config.Data.auxiliary == 0:
        return None
    return _class_sets(config, fold.test_lists(config.Data.shot))


def _class_sets(config: Config, lists: EpisodeLists) -> ClassSets:
    sets = ClassSets(lists, config.Data.auxiliary)
    sets.check(config.Data.shot)
    return sets


def _kind(config: Config) -> AuxiliarySet:
    """Return the kind of auxiliary images that the method can use; the config must match it."""
    method = METHODS.get(config.Method.arch)
    kind = AuxiliarySet.NONE if method is None else method.inputs.auxiliary
    count = config.Data.auxiliary
    if kind is AuxiliarySet.NONE and count > 0:
        raise ConfigError(
            f"{config.where('Data.auxiliary')}: Data.auxiliary: {config.Method.arch} has no use for "
            f"auxiliary images; set it to 0, got {count}"
        )
    if kind is AuxiliarySet.CLASS and count == 0:
        get_log("engine").warning(
            "Data.auxiliary is 0: %s goes without its auxiliary set", config.Method.arch
        )
    return kind
