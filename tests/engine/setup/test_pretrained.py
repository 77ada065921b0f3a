"""ImageNet weights under their published names."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from fewseg.engine.setup.pretrained import load_pretrained
from fewseg.model import create_backbone, create_base_learner, create_model
from fewseg.util.errors import CheckpointError

SEMSEG_STEM = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}


def published(state: dict[str, torch.Tensor], stem: dict[str, str]) -> dict[str, torch.Tensor]:
    """Give a ResNet's weights the names of an ImageNet file, with its classifier."""
    renamed = {}
    for name, value in state.items():
        stage, _, rest = name.partition(".")
        index, _, leaf = rest.partition(".")
        renamed[f"{stem[index]}.{leaf}" if stage == "layer0" else name] = value
    return {**renamed, "fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_deep_stem_file_is_found_by_name(tmp_path):
    source = create_backbone("resnet50", width=8)
    torch.save(published(source.state_dict(), SEMSEG_STEM), tmp_path / "resnet50_v2.pth")
    target = create_backbone("resnet50", width=8)
    assert "resnet50_v2.pth" in load_pretrained(target, None, tmp_path)
    assert_same_weights(source, target)


def test_torchvision_names_fit_the_standard_stem(tmp_path):
    source = create_backbone("resnet18", width=8, stem="standard")
    torch.save(published(source.state_dict(), {"0": "conv1", "1": "bn1"}), tmp_path / "weights.pth")
    target = create_backbone("resnet18", width=8, stem="standard")
    load_pretrained(target, str(tmp_path / "weights.pth"))
    assert_same_weights(source, target)


def test_a_backbone_without_its_last_stage_leaves_that_stage_out(tmp_path):
    source = create_backbone("resnet50", width=8)
    nested = {index: f"conv1.{index}" for index in SEMSEG_STEM} | {"7": "bn1"}
    for number, stem in enumerate((SEMSEG_STEM, nested)):
        path = tmp_path / f"{number}.pth"
        torch.save(published(source.state_dict(), stem), path)
        target = create_backbone("resnet50", width=8, last_stage="layer3")
        load_pretrained(target, str(path))
        own = source.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in target.state_dict().items())


def test_a_checkpoint_of_a_network_trained_here_gives_its_backbone(tmp_path):
    learner = create_base_learner("pspnet", backbone="resnet18", classes=3, backbone_options={"width": 8})
    save_file(learner.state_dict(), tmp_path / "best.safetensors")
    shorter = create_model("mlc", backbone="resnet18", backbone_options={"width": 8}).backbone
    load_pretrained(shorter, str(tmp_path / "best.safetensors"))
    theirs = learner.backbone.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in shorter.state_dict().items())
    wider = create_backbone("resnet18", width=16)
    with pytest.raises(CheckpointError, match="not the weights of this resnet18"):
        load_pretrained(wider, str(tmp_path / "best.safetensors"))


@pytest.mark.parametrize(
    "options", [{}, {"batch_norm": False, "pool_kernel": 3, "pool_stride": (2, 2, 2, 1, 0)}]
)
def test_layers_of_vgg_are_cut_into_groups(tmp_path, options):
    source, target = (create_backbone("vgg16", **options) for _ in range(2))
    number, entries = 0, {"classifier.0.weight": torch.zeros(2)}
    for stage in source.stages:
        for layer in source.get_submodule(stage):
            entries |= {f"features.{number}.{leaf}": value for leaf, value in layer.state_dict().items()}
            number += 1
    name = "vgg16-397923af.pth" if options else "vgg16_bn.pth"
    torch.save(entries, tmp_path / name)
    assert name in load_pretrained(target, "imagenet", tmp_path)
    assert_same_weights(source, target)


def test_none_leaves_the_weights_alone():
    backbone = create_backbone("resnet18", width=8)
    before = backbone.layer0[0].weight.clone()
    assert load_pretrained(backbone, "none") == "random weights"
    assert torch.equal(before, backbone.layer0[0].weight)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "resnet50",
            r"resnet50_v2.pth.*103 MB.*https://drive.google.com/\S+ .*stem standard.*pretrained none",
        ),
        ("resnet101", r"resnet101_v2.pth.*179 MB.*https://drive.google.com/\S+ .*stem standard"),
        ("resnet18", "deep-stem resnet18.*stem standard"),
    ],
)
def test_missing_file_says_how_to_go_on(tmp_path, name, said):
    with pytest.raises(CheckpointError, match=said) as caught:
        load_pretrained(create_backbone(name, width=8), "imagenet", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_without_a_network_the_download_says_how_to_go_on(tmp_path, monkeypatch, name):
    pytest.importorskip("torchvision")

    def no_network(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    backbone = create_backbone(name, stem="standard")
    with pytest.raises(
        CheckpointError, match=rf"{name}: .*no network.*or go on without: --opts pretrained none"
    ):
        load_pretrained(backbone, None, tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(create_backbone("resnet18", width=16).state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"misshaped.*pretrained none"):
        load_pretrained(create_backbone("resnet18", width=8), str(tmp_path / "other.pth"))


def test_filters_of_further_channels_stay_as_drawn(tmp_path):
    source = create_backbone("resnet18", width=8, stem="standard")
    torch.save(published(source.state_dict(), {"0": "conv1", "1": "bn1"}), tmp_path / "weights.pth")
    target = create_backbone("resnet18", width=8, stem="standard", inputs=4)
    drawn = target.layer0[0].weight[:, 3:].clone()
    load_pretrained(target, str(tmp_path / "weights.pth"))
    assert torch.equal(target.layer0[0].weight, torch.cat([source.layer0[0].weight, drawn], 1))


def test_a_second_branch_starts_from_the_same_file_and_its_classifier(tmp_path):
    options = {"fc_dim": 6, "code_dim": 4, "fc_kernel": 1, "query_margin": 0}
    one, other = (
        create_model("oslsm", backbone="vgg16", backbone_options={"width": 8}, **options) for _ in range(2)
    )
    names = one.backbone.layer_names("torchvision")
    entries = {
        f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v
        for k, v in one.backbone.state_dict().items()
    }
    classifier = one.meta.condition.classifier.state_dict()
    torch.save(entries | {f"classifier.{k}": v for k, v in classifier.items()}, tmp_path / "weights.pth")
    load_pretrained(other.backbone, str(tmp_path / "weights.pth"), network=other)
    assert_same_weights(other.meta.condition.backbone, one.backbone)
    assert_same_weights(other.meta.condition.classifier, one.meta.condition.classifier)
    assert torch.equal(other.meta.cells[3].weight.flatten(1), one.meta.condition.classifier[3].weight)


def test_a_failed_download_names_the_file(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    said = r"no network.*https://download.pytorch.org/models/resnet50-0676ba61.pth.*pretrained PATH"
    with pytest.raises(CheckpointError, match=said):
        load_pretrained(create_backbone("resnet50", width=8, stem="standard"), None, tmp_path)
