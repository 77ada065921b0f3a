"""The pretended GPU refuses what CUDA refuses, and counts what makes the host wait."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.pretend_gpu import MixtureError, pretended_gpu


@pytest.fixture
def gpu():
    with pretended_gpu() as pretended:
        yield pretended


@pytest.fixture
def there(gpu):
    """Values on the GPU."""
    return torch.arange(6.0, device="cuda").view(2, 3)


def test_it_is_found(gpu):
    assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    assert torch.accelerator.is_available()
    assert torch.cuda.mem_get_info()[0] < torch.cuda.get_device_properties(0).total_memory


def test_nothing_stays_behind():
    with pretended_gpu():
        pass
    assert torch.cuda.is_available() == (torch.cuda.device_count() > 0)
    assert torch.zeros(1).is_pinned() is False and torch.Generator().device.type == "cpu"


def test_results_lie_where_their_arguments_do(gpu, there):
    layer = torch.nn.Linear(3, 2).to("cuda")
    gpu.waits.clear()
    out = layer(there)
    out.sum().backward()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    optimizer.step()
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    on_gpu = [there, there[0], there.T, there + 1, out, layer.weight, layer.weight.grad, *moments]
    on_gpu += [torch.zeros_like(there), there.new_zeros(2), there.double(), there.to(torch.int64)]
    on_gpu += [torch.rand(2, generator=torch.Generator("cuda"), device="cuda")]
    assert all(tensor.is_cuda and tensor.device == torch.device("cuda:0") for tensor in on_gpu)
    assert not any(tensor.is_cuda for tensor in (torch.zeros(2), torch.zeros_like(there, device="cpu")))
    assert gpu.operations > 10 and gpu.waits == []


def test_zeros_of_the_backward_pass_follow(there):
    values = torch.ones(2, device="cuda", requires_grad=True)
    made = there.sum(1).index_put((torch.tensor([True, False], device="cuda"),), values[:1])
    (made * there[:, 0]).sum().backward()
    assert values.grad.is_cuda


def test_results_in_inference_mode(gpu, there):
    with torch.inference_mode():
        out = functional.linear(there, torch.ones(4, 3, device="cuda"))
        assert out.is_cuda and out.sum(1).is_cuda
        assert gpu.waits == []
        assert out.sum().item() == 60
    assert [wait.what for wait in gpu.waits] == ["item"]


@pytest.mark.parametrize(
    "mix",
    [
        lambda there, here: there + here,
        lambda there, here: here * there.sum(),
        lambda there, here: torch.cat([there, here]),
        lambda there, here: torch.stack([there.sum(), here.sum()]),
        lambda there, here: here.sum().add_(there.sum()),
        lambda there, here: here[there.long()],
        lambda there, here: torch.where(here > 1, there, there),
        lambda there, here: functional.linear(there, here),
        lambda there, here: torch.equal(there, here),
        lambda there, here: there.index_put_((torch.tensor([0]),), here[:1]),
        lambda there, here: torch.rand(2, generator=torch.Generator(), device="cuda"),
        lambda there, here: torch.rand(2, generator=torch.Generator("cuda")),
        lambda there, here: there.long() @ there.long().T,
    ],
)
def test_mixtures_are_refused(there, mix):
    with pytest.raises(MixtureError):
        mix(there, torch.ones(2, 3))


def test_what_cuda_mixes_is_allowed(gpu, there):
    one = torch.tensor(1.0)
    mixed = [there + one, one - there, torch.where(there > 1, one, there), there * 2, there.clamp(min=one)]
    assert all(tensor.is_cuda for tensor in mixed)
    assert gpu.waits == []


@pytest.mark.parametrize(
    "use", [lambda copy: copy.numpy(), lambda copy: copy + 1, lambda copy: copy.tolist()]
)
def test_a_copy_that_has_not_ended_cannot_be_read(there, use):
    copy = there.to("cpu", non_blocking=True)
    with pytest.raises(MixtureError, match="still writes"):
        use(copy)
    torch.cuda.current_stream().synchronize()
    use(copy)


@pytest.mark.parametrize("convert", [lambda tensor: tensor.numpy(), np.asarray], ids=["numpy", "asarray"])
def test_no_array_of_a_tensor_on_the_gpu(there, convert):
    with pytest.raises(TypeError, match="cuda:0"):
        convert(there)
    assert convert(there.cpu()).shape == (2, 3)


WAITS = {
    "item": lambda there: there[0, 0].item(),
    "bool": lambda there: bool((there > 9).any()),
    "int": lambda there: int(there[0, 1]),
    "float": lambda there: float(there[0, 1]),
    "index": lambda there: [1, 2][there[0, 1].long()],
    "if": lambda there: 1 if there.sum() > 2 else 2,
    "format": lambda there: f"{there.sum():.2f}",
    "tolist": lambda there: there.tolist(),
    "cpu": lambda there: there.cpu(),
    "to cpu": lambda there: there.to("cpu"),
    "to gpu": lambda there: torch.ones(3).to("cuda"),
    "to gpu, not pinned": lambda there: torch.ones(3).cuda(non_blocking=True),
    "to gpu, blocking": lambda there: torch.ones(3).pin_memory().to(there.device),
    "to a tensor": lambda there: torch.ones(3).to(there),
    "from data": lambda there: torch.tensor([1.0], device=there.device),
    "copy_": lambda there: there.copy_(torch.ones(2, 3)),
    "slice": lambda there: there.__setitem__(slice(0, 1), torch.ones(1, 3)),
    "copy_ back": lambda there: torch.ones(2, 3).copy_(there),
    "nonzero": lambda there: there.nonzero(),
    "where": lambda there: torch.where(there > 1),
    "boolean index": lambda there: there[there > 1],
    "boolean assignment": lambda there: there.__setitem__(there > 4, there.view(-1)[:1]),
    "index in main memory": lambda there: there[torch.tensor([0, 1])],
    "bincount": lambda there: there.long().view(-1).bincount(minlength=6),
    "unique": lambda there: there.unique(),
    "masked_select": lambda there: there.masked_select(there > 1),
    "repeat_interleave": lambda there: torch.repeat_interleave(there[0], there[0].long()),
    "equal": lambda there: torch.equal(there, there + 1),
    "allclose": lambda there: torch.allclose(there, there),
    "multinomial": lambda there: there.multinomial(1),
    "synchronize": lambda there: torch.cuda.synchronize(),
    "event": lambda there: torch.cuda.Event().synchronize(),
}


@pytest.mark.parametrize("kind", WAITS)
def test_waits_are_counted(gpu, there, kind):
    WAITS[kind](there)
    assert len(gpu.waits) == 1, gpu.listed()
    assert "test_pretend_gpu.py" in gpu.waits[0].line


PROMPT = {
    "pinned": lambda there: torch.ones(3).pin_memory().to("cuda", non_blocking=True) + there,
    "back": lambda there: there.to("cpu", non_blocking=True),
    "filled": lambda there: there.__setitem__(there > 1, 0.0),
    "slice": lambda there: there.__setitem__(slice(0, 1), 5.0),
    "one_hot": lambda there: functional.one_hot(there.long(), 6) + there[..., None],
    "index": lambda there: there[there[0, :2].long() * 0],
    "where": lambda there: torch.where(there > 1, there, 0.0),
    "output size": lambda there: there[0].repeat_interleave(there[0].long(), output_size=3),
    "same place": lambda there: there.to("cuda").to(torch.float64).cuda() + there,
    "layout": lambda there: torch.nn.Conv2d(3, 3, 1).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("kind", PROMPT)
def test_nothing_else_is_a_wait(gpu, there, kind):
    PROMPT[kind](there)
    assert gpu.waits == [], gpu.listed()


def test_other_threads_have_it_too(gpu, there):
    found = []
    thread = threading.Thread(target=lambda: found.append((there + torch.zeros(3).to("cuda")).is_cuda))
    thread.start()
    thread.join()
    assert found == [True] and len(gpu.waits) == 1


def test_freed_storages_are_forgotten(gpu):
    for _ in range(3000):
        torch.ones(4, device="cuda") + 1
    assert len(gpu.resident._held) < 2500
    assert not any(torch.ones(4).is_cuda for _ in range(100))


def test_autocast(there):
    with torch.autocast("cuda", torch.bfloat16):
        assert (there @ there.T).dtype == torch.bfloat16
