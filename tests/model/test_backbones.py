"""Backbones describe themselves, methods read them by role, and what cannot work is refused with a reason."""

from __future__ import annotations

import ast
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fewseg.engine.setup.pretrained import load_pretrained
from fewseg.model import create_adapter, create_backbone, create_model, list_models
from fewseg.model.backbone.contract import LEVELS, ROLES
from fewseg.model.create import BACKBONES, METHODS
from fewseg.model.fewshot import FewShotModel
from fewseg.model.pixels import MEAN, STD
from fewseg.util.errors import CheckpointError
from tests.model.patches import PATCH, Patches
from tests.model.tester import decode_encoded, draw_statistics, random_episode

ROOT = Path(__file__).resolve().parents[2]
SIDE = 112


STAGES = "runs the last stage of its backbone alone, on masked features of the stage before; patches cannot"
REFUSED = {
    "bam": STAGES,
    "fss1000": "shows its backbone the mask as a fourth channel, and patches as built reads 3 channels",
    "pfenet": STAGES,
    "rare": STAGES,
}
"""Methods that need more than patches offer -> what they say."""

MIDDLE_ONLY = ("pmm", "rpmm")
"""Methods that let the backbone learn and read it no further than its middle features."""

OPTIONS: dict[str, dict[str, object]] = {
    "hsnet": {"channels": 32},
    "mianet": {"embeddings": torch.randn(16, 300, generator=torch.Generator().manual_seed(0))},
    "oslsm": {
        **{"fc_dim": 8, "code_dim": 4, "fc_kernel": 3, "cell_stride": PATCH, "query_margin": PATCH},
        "support_side": SIDE,
    },
}


def build(method: str, **changes: object) -> FewShotModel:
    torch.manual_seed(0)
    narrow = {"channels": 16} if "channels" in METHODS[method].Options.__dataclass_fields__ else {}
    given = {"backbone": Patches(), "image_size": SIDE, **narrow, **OPTIONS.get(method, {}), **changes}
    return create_model(method, **given)


@pytest.mark.parametrize("method", list_models())
def test_a_method_runs_on_one_grid_of_patches_or_says_why_not(method: str) -> None:
    if method in REFUSED:
        with pytest.raises(ValueError, match=re.escape(f"{method} {REFUSED[method]}")) as caught:
            build(method)
        assert "\n" not in str(caught.value)
        return
    model, episode = build(method).train(), random_episode(SIDE)
    sum(model.losses(model(episode), episode, torch.Generator().manual_seed(0)).values()).backward()
    trained = {id(p) for group in model.param_groups().values() for p in group}
    unread = "backbone.blocks.block2" if method in MIDDLE_ONLY else "nothing"
    for name, parameter in model.named_parameters():
        reached = id(parameter) in trained and not name.startswith(unread)
        assert (parameter.grad is not None) == reached, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    with torch.no_grad():
        single, whole = decode_encoded(model.eval(), episode), model(episode).logits
    assert whole.shape == (2, 2, SIDE, SIDE)
    torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", list_models())
def test_the_page_of_methods_says_what_each_reads_and_whether_it_runs_without_stages(method: str) -> None:
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    table = page.partition("| method | reads | on a backbone of one grid, without stages |")[2].partition(
        "\n\n"
    )[0]
    (row,) = (line.split("|") for line in table.splitlines() if f"`{method}`" in line)
    inputs = METHODS[method].inputs if method in REFUSED else build(method).meta.inputs
    assert set(re.findall(r"\w+", row[2])) == {*ROLES, LEVELS} & {*inputs.query, *inputs.support}
    assert row[3].strip().startswith("refused: " if method in REFUSED else "runs")


def test_base_learner_ensemble_and_adaptation_read_patches_too() -> None:
    episode = random_episode(SIDE, batch=1)
    model = build("canet", base="pspnet", ensemble="bam").eval()
    with torch.no_grad():
        assert model(episode).parts["scene_distance"].isfinite().all()
    adapted = create_adapter("eftnet", build("msanet").eval(), rounds=2)(episode).logits
    assert adapted.isfinite().all()


def test_one_line_of_the_registry_makes_a_backbone_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "patches", partial(Patches))
    model = build("panet", backbone="patches", backbone_options={"width": 8})
    assert model.backbone.spec.channels("high") == 8
    with pytest.raises(ValueError, match="options are for a backbone given by name"):
        build("panet", backbone_options={"width": 8})


@pytest.mark.parametrize(("side", "nearest"), [(473, "462 or 476"), (111, "98 or 112"), (9, "14")])
def test_sides_that_a_backbone_cannot_have_are_refused_with_the_nearest(side: int, nearest: str) -> None:
    said = f"patches needs sides that are multiples of 14 pixels, not {side}; take {nearest}$"
    with pytest.raises(ValueError, match="image_size of panet: " + said):
        build("panet", image_size=side)
    with pytest.raises(ValueError, match=said):
        build("panet").encode_query(torch.zeros(1, 3, SIDE, side))


def test_margin_and_support_side_count_as_sides() -> None:
    with pytest.raises(
        ValueError, match=r"image_size of oslsm with a margin of 10: .* not 132; take 126 or 140"
    ):
        build("oslsm", query_margin=10)
    with pytest.raises(ValueError, match=r"support_side of oslsm: .* not 225; take 224 or 238"):
        build("oslsm", support_side=225)


def test_a_backbone_sees_pixels_on_its_own_scale() -> None:
    seen: list[Tensor] = []
    model = build("panet").eval()
    model.backbone.embed.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    grey = torch.rand(1, 3, SIDE, SIDE)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) / 255 for values in (MEAN, STD))
    model.query_features((grey - mean) / std)
    torch.testing.assert_close(seen[0], grey)
    with pytest.raises(ValueError, match=r"sgone scales pixels to 'swapped' .* and patches to 'unit'"):
        build("sgone", channel_order="bgr")


def test_a_backbone_without_public_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"no ImageNet weights are found for this patches; .*pretrained PATH"
    ):
        load_pretrained(Patches(), "imagenet", tmp_path)
    weights = Patches()
    torch.save(weights.state_dict(), tmp_path / "own.pth")
    loaded = Patches()
    load_pretrained(loaded, str(tmp_path / "own.pth"))
    assert torch.equal(loaded.embed.weight, weights.embed.weight)


@pytest.mark.parametrize("method", ["panet", "pfenet", "hsnet", "fss1000", "canet", "mlc", "sgone"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_what_a_backbone_declares_is_what_it_computes(method: str, name: str) -> None:
    variant = METHODS[method].published.backbone_variants.get(BACKBONES[name].func.family, {})
    backbone = create_backbone(name, **{**variant, "width": 8}).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, backbone.inputs, 65, 65), backbone.spec.features)
    for feature, declared in backbone.spec.features.items():
        channels, height, width = features[feature].shape[1:]
        assert channels == declared.channels, feature
        assert height == width and height in (65 // declared.stride, -(-65 // declared.stride)), feature
    assert (features["signed"] < 0).any()
    if "high" in backbone.spec.roles:
        assert torch.equal(backbone.run_stage("layer4", features[backbone.spec.high_from]), features["high"])


def test_a_backbone_that_ends_early_is_refused_where_the_high_feature_is_read() -> None:
    with pytest.raises(
        ValueError, match="pfenet reads the high feature, and resnet18 ends before it, with layer3"
    ):
        create_model("pfenet", backbone="resnet18", backbone_options={"last_stage": "layer3"})


def test_no_code_but_the_registry_knows_the_classes_of_backbones() -> None:
    """Constants, such as the options of a published variant, may be imported; classes tell families apart."""
    for file in (path for folder in ("model", "engine", "tools") for path in (ROOT / folder).rglob("*.py")):
        if file.parent == ROOT / "model/backbone" or file == ROOT / "model/create.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and re.search(
                r"backbone\.(resnet|vgg|staged)$", node.module or ""
            ):
                assert all(alias.name.isupper() for alias in node.names), file


@pytest.mark.parametrize(
    ("network", "options", "grid"),
    [
        ("resnet50", {"width": 4}, (44, 37)),
        ("resnet18", {"width": 4, "dilation": (1, 1, 2, 2), "dilate_first_block": False}, (30, 41)),
        ("vgg16", {"width": 4}, (30, 23)),
    ],
)
def test_a_stage_runs_only_where_its_output_is_read(
    network: str, options: dict[str, object], grid: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(network, **options).eval().double()
    draw_statistics(backbone)
    x = torch.randn(2, backbone.spec.channels("layer3"), *grid, dtype=torch.float64)
    inside = torch.zeros(2, 1, *grid, dtype=torch.bool)
    inside[0, 0, 3:7, grid[1] - 6 :] = True  # at the right edge
    inside[1, 0, 5, grid[1] - 4] = True
    sizes = []
    for module in backbone.layer4.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, given, result: sizes.append(result[0, 0].numel()))
    with torch.no_grad():
        whole = backbone.run_stage("layer4", x)
        reached, sizes[:] = max(sizes), []
        part = backbone.run_stage_within("layer4", x, inside)
        nothing = backbone.run_stage_within("layer4", x, torch.zeros_like(inside))
    torch.testing.assert_close(part[..., 3:7, -6:], whole[..., 3:7, -6:], rtol=1e-12, atol=1e-12)
    assert part.shape == nothing.shape == whole.shape
    assert part[..., 7:, :].abs().max() == part[..., :-6].abs().max() == 0
    assert sizes[-1] < sizes[0] < reached == grid[0] * grid[1]


def test_batch_statistics_are_those_of_the_whole_grid() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("resnet18", width=4).train()
    x = torch.randn(1, 16, 30, 30)
    inside = torch.zeros(1, 1, 30, 30, dtype=torch.bool)
    inside[..., :2, :2] = True
    with torch.no_grad():
        whole, part = backbone.run_stage("layer4", x), backbone.run_stage_within("layer4", x, inside)
    assert torch.equal(whole, part)
