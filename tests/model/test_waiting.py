"""The forms that run on a GPU, where no shape depends on values, equal those that run on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fewseg.model import create_adapter, create_model, waiting
from fewseg.model.episode import Prediction
from fewseg.model.layer.pooling import gather_positions
from fewseg.model.meta.hsnet.centre_pivot import CentrePivotConv
from fewseg.model.meta.hsnet.hypercorrelation import hypercorrelation, object_vectors, unit_vectors
from fewseg.model.meta.rare import at_share
from tests.model.test_mlc import with_mined
from tests.model.tester import random_episode
from tests.pretend_gpu import pretended_gpu

OPTIONS: dict[str, dict[str, object]] = {
    "bam": {"channels": 16},
    "hdmnet": {"channels": 16, "matching_channels": 16},
    "hsnet": {"channels": 32},
    "msanet": {"channels": 16, "similarity_channels": 8},
    "pfenet": {"channels": 16},
    "mlc-reconstruction": {"min_area": 0},
    "rare": {"channels": 16, "contrast_weight": 0.0},
}
"""Methods with two forms, and options that make them small."""

TINY: dict[str, object] = {"backbone": "resnet18", "backbone_options": {"width": 8}}


@pytest.fixture
def fixed_shapes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Choose the forms of a GPU; ``undo`` chooses those of a CPU again."""
    monkeypatch.setattr(waiting, "would_wait", lambda tensor: True)
    return monkeypatch


def test_gathered_vectors_come_first_and_in_order(fixed_shapes: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    features, inside = torch.randn(3, 5, 4, 6), torch.rand(3, 1, 4, 6) > 0.6
    inside[1] = False
    fixed = gather_positions(features, inside)
    fixed_shapes.undo()
    packed = gather_positions(features, inside)
    assert packed.shape[2] < fixed.shape[2] == 24
    assert torch.equal(fixed[:, :, : packed.shape[2]], packed)
    assert not fixed[:, :, packed.shape[2] :].any()


def test_positions_that_are_not_selected_may_hold_no_numbers(fixed_shapes: pytest.MonkeyPatch) -> None:
    features, inside = torch.full((1, 2, 2, 2), torch.nan), torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    assert torch.equal(gather_positions(features, inside), torch.zeros(1, 2, 4))


@pytest.mark.parametrize("seed", range(8))
def test_the_extent_of_an_object_is_enough_on_every_grid(seed: int, fixed_shapes: pytest.MonkeyPatch) -> None:
    """Objects of any size, at the border too; MSANet's mask passes through the most grids."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(2, 97, 129, dtype=torch.int64)
    for item in mask:
        top, left = (int(torch.randint(side - 1, (1,), generator=generator)) for side in item.shape)
        height, width = torch.randint(1, 70, (2,), generator=generator).tolist()
        item[top : top + height, left : left + width] = 1
    image = torch.randn(2, 3, 97, 129, generator=generator)
    for method in ("msanet", "hdmnet"):
        model = create_model(method, **TINY, image_size=97, **OPTIONS[method]).eval()
        with torch.no_grad():
            whole = model.encode_support(image, mask)
            with waiting.known_objects(list(mask)):
                cut = model.encode_support(image, mask)
        assert sum(map(torch.numel, cut.values())) < sum(map(torch.numel, whole.values()))
        for name, entry in cut.items():
            rest = whole[name][..., entry.shape[-1] :]
            assert torch.equal(entry, whole[name][..., : entry.shape[-1]]) and not rest.any(), name
    assert waiting.most_positions((97, 129)) == 97 * 129


def test_an_object_larger_than_it_is_known_is_refused(fixed_shapes: pytest.MonkeyPatch) -> None:
    features, inside = torch.ones(1, 2, 9, 9), torch.ones(1, 1, 9, 9, dtype=torch.bool)
    with waiting.known_objects([torch.zeros(9, 9)]), pytest.raises(RuntimeError, match="more positions"):
        gather_positions(features, inside)


def test_hypercorrelation_has_one_result(fixed_shapes: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, support = unit_vectors(torch.randn(2, 2, 16, 4, 5)), torch.randn(2, 2, 16, 3, 4)
    mask = torch.rand(2, 1, 3, 4) * (torch.rand(2, 1, 3, 4) > 0.5)
    mask[1] = 0
    occupied = mask[:, 0] > 0
    fixed = hypercorrelation(query, object_vectors(support, mask), occupied)
    fixed_shapes.undo()
    torch.testing.assert_close(fixed, hypercorrelation(query, object_vectors(support, mask), occupied))


@pytest.mark.parametrize(("kernel", "stride"), [(5, 4), (3, 2), (3, 1)])
def test_centre_pivot_convolution_has_one_result(
    kernel: int, stride: int, fixed_shapes: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = CentrePivotConv(3, 8, kernel, stride).double()
    occupied = torch.rand(2, 7, 6) > 0.6
    found = []
    for _ in range(2):
        x = (
            torch.randn(2, 7, 6, 3, 4, 5, generator=torch.Generator().manual_seed(1))
            .double()
            .requires_grad_()
        )
        out = layer(x * occupied[:, :, :, None, None, None], occupied)
        weight = torch.linspace(-1, 1, out[0].numel()).view_as(out[0])
        gradients = torch.autograd.grad((out * weight).sum(), [x, *layer.parameters()])
        found.append((out, gradients))
        fixed_shapes.undo()
    torch.testing.assert_close(*found)


def test_a_share_of_a_region_selects_one_of_its_positions() -> None:
    regions = torch.tensor([[[True, False, True, True], [False, True, False, False]]]).expand(4, 2, 4)
    share = torch.tensor([[0.0, 0.0], [0.34, 0.5], [0.67, 0.9], [1 - 1e-12, 1 - 1e-12]], dtype=torch.float64)
    drawn = at_share(regions, share)
    assert drawn.sum(2).eq(1).all()
    assert drawn.int().argmax(2).tolist() == [[0, 1], [2, 1], [3, 1], [3, 1]]
    assert not at_share(torch.zeros_like(regions), share).any()


def test_contrast_loss_has_one_result_where_every_draw_is_alike(fixed_shapes: pytest.MonkeyPatch) -> None:
    """The vectors of a region are equal; the second image shows the object only, so it does not count."""
    meta = create_model("rare", backbone="resnet18", backbone_options={"width": 8}, channels=16).meta
    label = torch.zeros(2, 5, 5, dtype=torch.int64)
    label[0, :2], label[1] = 1, 1
    merged = (
        1.5 * (label == 1).float().unsqueeze(1) + torch.linspace(-1, 1, 16)[:, None, None]
    ).requires_grad_()
    found = []
    for _ in range(2):
        loss = meta._contrast_loss(merged, label, torch.Generator().manual_seed(3))
        found.append((loss, *torch.autograd.grad(loss, merged)))
        fixed_shapes.undo()
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1].sum((2, 3)), found[1][1].sum((2, 3)))


@pytest.mark.parametrize("object_share", [0.0, 0.001, 0.3, 1.0])
def test_confident_pixels_have_one_result(object_share: float, fixed_shapes: pytest.MonkeyPatch) -> None:
    adapter = create_adapter("eftnet", create_model("panet", **TINY))
    torch.manual_seed(0)
    margin = torch.rand(1, 33, 33) * torch.where(torch.rand(1, 33, 33) < object_share, 1.0, -1.0)
    logits, found = torch.stack([torch.zeros_like(margin), margin], 1), []
    with adapter.adaptation(random_episode(33, batch=1)) as adapted:
        for _ in range(2):
            found.append(adapted.confident_mask(Prediction(logits)))
            fixed_shapes.undo()
    assert torch.equal(*found)


@pytest.mark.parametrize("method", OPTIONS)
def test_a_training_step_has_one_result(method: str, fixed_shapes: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = create_model(method, shot=2, **TINY, image_size=65, **OPTIONS[method]).train()
    episode = with_mined(random_episode(65, shots=2))
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        losses = model.losses(model(episode), episode, torch.Generator().manual_seed(2))
        trained = [p for group in model.param_groups().values() for p in group if p.requires_grad]
        found.append((losses, torch.autograd.grad(sum(losses.values()), trained)))
        fixed_shapes.undo()
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-3)


STEPS: dict[str, tuple[str, dict[str, object]]] = {
    "canet": ("main", {"channels": 16, "history_drop": 0.0}),
    "fsil": ("align", {"align_weight": 1.0}),
    "mianet": ("triplet", {"channels": 16, "embeddings": torch.ones(21, 30)}),
    "mlc-reconstruction": ("mining", {"region_bank": 5}),
    "plnet": ("classification", {"segment_head": "joint", "ways": 1}),
    "rare": ("contrast", {"channels": 16}),
}
"""Methods that draw, remember or read what their other tests on a pretended GPU do not give them: the loss
that needs it, and options."""


@pytest.mark.parametrize("method", STEPS)
def test_the_host_does_not_wait_in_a_step(method: str) -> None:
    episode = replace(with_mined(random_episode(65)), query_number=torch.arange(2))
    loss, options = STEPS[method]
    with pretended_gpu() as gpu:
        model = create_model(method, **TINY, image_size=65, **options).to("cuda").train()
        given, generator = episode.to("cuda"), torch.Generator("cuda").manual_seed(0)
        for _ in range(2):  # the second step reads what the first one has remembered
            gpu.reset()
            losses = model.losses(model(given), given, generator)
            sum(losses.values()).backward()
        assert not gpu.waits, gpu.listed()
        assert losses[loss].is_cuda and losses[loss] > 0
        assert all(entry.device.type == "cpu" for entry in model.memory.state().values())
        assert method != "canet" or model.memory.predictions[(0, 1)].is_cuda
