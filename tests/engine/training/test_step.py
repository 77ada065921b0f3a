"""A step: parts against the whole batch, bfloat16, and what a loss that is not finite leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data._utils.pin_memory import pin_memory

from fewseg.dataset.labels import VOID
from fewseg.dataset.loading.base_classes import BaseBatch
from fewseg.dataset.loading.few_shot import EpisodeBatch
from fewseg.engine.training.optimisation import create_optimizer, restore_optimizer
from fewseg.engine.training.parallel import Wrapped, allow_tf32
from fewseg.engine.training.step import training_step
from fewseg.model import create_base_learner
from fewseg.model.contract import Network
from tests.model.small_models import four_episodes, small_model
from tests.pretend_gpu import pretended_gpu


def few_shot() -> tuple[Network, object]:
    """A model, and episodes of which the first has a query without many labels."""
    episodes = four_episodes()
    query_mask = episodes.query_mask.clone()
    query_mask[0, 5:] = VOID
    return small_model("pfenet"), replace(
        episodes,
        query=episodes.query.double(),
        support=episodes.support.double(),
        query_mask=query_mask,
    )


def base_learner() -> tuple[Network, object]:
    episodes = four_episodes()
    label = episodes.query_mask.clone()
    label[3, :, 4:] = VOID
    learner = create_base_learner("pspnet", backbone="resnet18", classes=3, backbone_options={"width": 8})
    return learner, BaseBatch(episodes.query.double(), label, ("a", "b", "c", "d"))


@pytest.mark.parametrize("task", [few_shot, base_learner])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_give_the_step_of_the_whole_batch(
    task: Callable[[], tuple[Network, object]], parts: int
) -> None:
    ends, losses = [], []
    for accumulate in (1, parts):
        torch.manual_seed(3)
        model, batch = task()
        model.double().eval()  # neither statistics of the batch nor dropout
        optimizer = create_optimizer(model.param_groups(), lr=0.1, clip_norm=0.5)
        for _ in range(2):
            losses.append(training_step(model, batch, optimizer, accumulate=accumulate))
        ends.append([parameter.detach() for parameter in model.parameters()])
    for whole, added in zip(losses[:2], losses[2:], strict=True):
        torch.testing.assert_close(added, whole, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-7, atol=1e-10)


def test_a_loss_that_is_not_finite_changes_nothing_from_then_on() -> None:
    for name in ("sgd", "adam", "adamw"):
        model, batch = base_learner()
        model.double()
        optimizer = create_optimizer(model.param_groups(), name, lr=0.1, clip_norm=1.0)
        broken = batch._replace(image=batch.image * torch.nan)
        training_step(model, broken, optimizer)  # even as the first one
        assert optimizer.found_inf == 1
        optimizer.found_inf.zero_()
        training_step(model, batch, optimizer)
        kept = [parameter.detach().clone() for parameter in model.parameters()]
        moments = {
            number: {key: value.clone() for key, value in state.items()}
            for number, state in optimizer.state_dict()["state"].items()
        }
        for given in (broken, batch):
            training_step(model, given, optimizer)
        assert all(torch.equal(*pair) for pair in zip(kept, model.parameters(), strict=True))
        after = optimizer.state_dict()["state"]
        assert all(
            torch.equal(value, after[n][key]) for n, own in moments.items() for key, value in own.items()
        )
        assert all(value.isfinite().all() for own in after.values() for value in own.values())


def test_momentum_may_begin_later_for_some_parameters() -> None:
    first, second = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = create_optimizer({"all": [first, second]}, lr=1.0, weight_decay=0.0)
    first.grad = torch.ones(2)
    optimizer.step()
    second.grad = torch.ones(2)
    optimizer.step()
    assert first.tolist() == pytest.approx([1 - 1 - 1.9] * 2) and second.tolist() == [0.0, 0.0]


def test_restored_moments_lie_in_memory_as_their_parameters_do() -> None:
    """Fused updates take parameter, gradient and moments in the order in memory."""
    values, gradient = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last):
        parameter = nn.Parameter(values.to(memory_format=layout, copy=True))
        optimizer = create_optimizer({"all": [parameter]}, lr=0.1)
        state = {**optimizer.state_dict(), "state": {0: {"momentum_buffer": gradient * 3}}}
        restore_optimizer(optimizer, state)
        (parameter * gradient).sum().backward()
        optimizer.step()
        ends.append(parameter.detach())
    assert torch.equal(*ends)


def test_bfloat16_trains_and_leaves_losses_in_float32() -> None:
    torch.manual_seed(0)
    model = small_model("bam").train()
    forward = Wrapped(model, reduced=True)
    seen: list[torch.dtype] = []
    convolution = next(m for m in model.meta.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    prediction = forward(four_episodes())
    assert seen and set(seen) == {torch.bfloat16}
    assert {part.dtype for part in (prediction.logits, *prediction.parts.values())} == {torch.float32}
    optimizer = create_optimizer(model.param_groups(), "adamw", lr=1e-3)
    losses = [training_step(model, four_episodes(), optimizer, forward=forward) for _ in range(5)]
    totals = [float(sum(step.values())) for step in losses]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert totals[-1] < totals[0]


def test_tf32_is_for_convolutions_and_products() -> None:
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    try:
        for allowed in (True, False):
            allow_tf32(allowed)
            assert (convolutions.allow_tf32, products.allow_tf32) == (allowed, allowed)
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def test_features_of_inference_mode_cannot_be_learnt_from() -> None:
    """Why frozen parts run under ``no_grad``."""
    layer = nn.Linear(2, 2)
    with torch.inference_mode():
        features = torch.ones(1, 2)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        layer(features)
    with torch.no_grad():
        features = torch.ones(1, 2)
    layer(features).sum().backward()


def test_batches_are_pinned_and_copied_without_waiting() -> None:
    episodes = four_episodes()
    with pretended_gpu() as gpu:
        batches = EpisodeBatch(episodes, ()), BaseBatch(episodes.query, episodes.query_mask, ("a.jpg",))
        pinned = pin_memory(batches)
        for batch in pinned:
            moved = batch.to(torch.device("cuda"))
            tensors = (
                (moved.image, moved.label) if batch is not pinned[0] else (moved.query, moved.query_mask)
            )
            assert all(tensor.is_cuda for tensor in tensors)
        assert gpu.waits == [], gpu.listed()
