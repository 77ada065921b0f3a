"""From a config to a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from fewseg.dataset.classes.split import class_split
from fewseg.engine.setup.build import build_network
from fewseg.model.contract import BatchNorm
from fewseg.model.create import BACKBONES
from fewseg.util.config import Config, load_config
from fewseg.util.errors import ConfigError
from fewseg.util.word_vectors import load_word_vectors
from tests.model.patches import Patches
from tests.model.tester import random_episode

SPLIT = class_split("shapes", 0)


def test_hashed_word_vectors_have_a_row_for_every_class(configure: Callable[..., Config]) -> None:
    network = build_network(configure("mianet", **{"Method.options.embeddings": "hashed"}), SPLIT)
    assert network.meta.embeddings.equal(load_word_vectors("hashed", SPLIT.names))
    assert len(network.meta.embeddings) == 21


def test_a_method_that_needs_word_vectors_says_so(configure: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="needs word vectors"):
        build_network(configure("mianet"), SPLIT)


def test_a_missing_table_is_one_line_with_its_path(configure: Callable[..., Config], tmp_path: Path) -> None:
    missing = tmp_path / "words.npy"
    with pytest.raises(ConfigError, match="no such table") as failure:
        build_network(configure("mianet", **{"Method.options.embeddings": missing}), SPLIT)
    assert str(missing) in str(failure.value)
    assert "\n" not in str(failure.value)


def test_published_weights_of_the_losses_beside_the_ensemble(configure: Callable[..., Config]) -> None:
    model = build_network(configure("bam", aux_weight1=0.5, aux_weight2=0.0), SPLIT)
    plain = build_network(configure("bam"), SPLIT)
    plain.load_state_dict(model.state_dict())
    episode = random_episode(65, classes=15)
    weighted, full = (network.losses(network.eval()(episode), episode) for network in (model, plain))
    assert torch.equal(weighted["main"], full["main"])
    torch.testing.assert_close(weighted["meta"], 0.5 * full["meta"])
    assert weighted["base"] == 0 < full["base"]


def test_published_flat_keys_become_options(configure: Callable[..., Config]) -> None:
    network = build_network(configure("pfenet", ppm_scales=[1.0, 0.5], aux_weight=0.5, fix_bn=False), SPLIT)
    assert network.meta.options.ppm_scales == (1.0, 0.5)
    assert network.meta.options.aux_weight == 0.5
    assert network.meta.learning.batch_norm is BatchNorm.BATCH


@pytest.mark.parametrize(
    ("opts", "source", "message"),
    [
        ({"backbone": "resnet7"}, "--opts backbone", "Method.backbone: there is no backbone 'resnet7'"),
        ({"arch": "bum"}, "--opts arch", "Method.arch: there is no method 'bum'"),
        ({"Method.options.dropout": ".nan"}, "--opts Method.options.dropout", "must be a finite number"),
        (
            {"kshot_trans_dim": 4000, "low_fea": "layer9"},
            "--opts low_fea",
            "Method.low_fea: there is no feature",
        ),
        ({"base": "pspnit"}, "--opts base", "Method.base: there is no base learner 'pspnit'"),
        ({"ensemble": "bum"}, "--opts ensemble", "Method.ensemble: there is no ensemble 'bum'"),
        ({"Method.options.zebra": 1}, "--opts Method.options.zebra", "bam has no option 'zebra'"),
        (
            {"Method.backbone_options.dilation": "[1]"},
            "--opts Method.backbone_options.dilation",
            "must be a list of 4 values",
        ),
    ],
)
def test_a_refusal_names_the_place_that_is_to_blame(
    configure: Callable[..., Config], opts: dict[str, object], source: str, message: str
) -> None:
    arch = opts.pop("arch", "bam")
    with pytest.raises(ConfigError) as failure:
        build_network(configure(arch, **opts), SPLIT)
    assert str(failure.value).startswith(f"{source}: ") and message in str(failure.value)


def test_a_refusal_of_a_file_names_its_line(config_file: Path) -> None:
    text = config_file.read_text().replace("width: 8", "width: 0")
    config_file.write_text(text)
    with pytest.raises(ConfigError, match=r"tiny\.yaml:\d+: Method.backbone_options.width: option 'width'"):
        build_network(load_config(config_file, ["arch", "bam"]), SPLIT)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_h": 65, "train_w": 65}, r"image_size of panet: .* not 65; take 56 or 70"),
        ({"val_size": 65}, r"Data.val_size: patches needs .* not 65; take 56 or 70"),
        ({"protocol": "mlc"}, r"tests images at their own size.*resize letterbox"),
    ],
)
@pytest.mark.parametrize("arch", ["panet", "pspnet"])
def test_sides_that_the_backbone_cannot_have(
    configure: Callable[..., Config],
    config_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    arch: str,
    changes: dict[str, object],
    said: str,
) -> None:
    monkeypatch.setitem(BACKBONES, "patches", partial(Patches))
    config_file.write_text(config_file.read_text().replace(", stem: deep", ""))
    fitting = {"backbone": "patches", "train_h": 70, "train_w": 70, "val_size": 70}
    build_network(configure(arch, **fitting), SPLIT)
    if arch == "pspnet":
        said = said.replace("image_size of panet", "Data.train_h")
    with pytest.raises(ConfigError, match=said) as failure:
        build_network(configure(arch, **(fitting | changes)), SPLIT)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("method", "shot", "images"), [("msanet", 1, "query and supports"), ("pmm", 2, "several supports")]
)
def test_images_at_their_own_size_are_refused_where_they_must_be_equal(
    configure: Callable[..., Config], method: str, shot: int, images: str
) -> None:
    config = configure(method, test_protocol="mlc", shot=shot)
    with pytest.raises(ConfigError, match=f"test_protocol: mlc .* needs {images} of one size; set Data.prot"):
        build_network(config, SPLIT)
