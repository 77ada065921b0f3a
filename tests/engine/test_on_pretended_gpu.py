"""All work of every method on a pretended GPU: nothing mixes the places, and the host hardly waits.

A wait is whatever stops the host until the GPU has done all that was asked of it (``tests/pretend_gpu.py``).
Training waits once every ``print_freq`` steps, an evaluation once per batch of decoded episodes, a prediction
once per image, and an adaptation twice per episode: the host chooses the round by its score, and then counts.
"""

from __future__ import annotations

import pytest

import train
from fewseg.model import list_models
from fewseg.model.create import METHODS
from tests.methods_on_gpu import ADAPTED, WORK
from tests.pretend_gpu import pretended_gpu

WITH_BASE_LEARNER = [name for name in list_models() if METHODS[name].published.base]
ADAPTABLE = [name for name in list_models() if METHODS[name].adaptation]
MINED = ["mlc", "mlc-reconstruction", "panet"]
ONE_WAIT_EACH = [
    *(("evaluation", method) for method in list_models()),
    *(("generalised", method) for method in WITH_BASE_LEARNER),
    *(("prediction", method) for method in list_models()),
]
"""Work that waits once per batch of decoded episodes or predicted image, whose number it returns."""


@pytest.fixture
def gpu():
    with pretended_gpu() as pretended:
        yield pretended


@pytest.mark.parametrize("method", list_models())
def test_training_waits_once_where_it_shows_its_losses(gpu, method):
    WORK["training"](method, gpu)
    assert len(gpu.waits) <= 1, gpu.listed()


@pytest.mark.parametrize(("work", "method"), ONE_WAIT_EACH)
def test_a_batch_of_episodes_or_a_predicted_image_is_one_wait(gpu, work, method):
    expected = WORK[work](method, gpu)
    assert len(gpu.waits) <= expected, gpu.listed()


@pytest.mark.parametrize("method", ADAPTABLE)
def test_adaptation_waits_for_the_chosen_round_and_the_counts(gpu, method):
    WORK["adaptation"](method, gpu)
    assert len(gpu.waits) <= 2 * ADAPTED, gpu.listed()


@pytest.mark.parametrize("method", MINED)
def test_mining_waits_once_per_label_and_for_the_centres(gpu, method):
    images = WORK["mining"](method, gpu)
    assert len(gpu.waits) <= images + 3, gpu.listed()  # prototypes of objects and background, and centres


@pytest.mark.parametrize("work", WORK)
def test_work_is_done_on_the_gpu(gpu, work):
    WORK[work]("panet" if work == "mining" else "bam", gpu)
    assert gpu.operations > 100


def test_the_scripts_choose_the_gpu_themselves(gpu, base_weight, config_file, script, tmp_path):
    opts = [*("arch", "bam", "Method.options.channels", "16"), *("epochs", "1", "max_steps", "3")]
    train.main(["--config", str(config_file), "--opts", *opts])
    steps = gpu.operations
    out = tmp_path / "out"
    script.main(["--config", str(config_file), "--out", str(out), "--episodes", "3", "--opts", *opts])
    assert steps > 1000 and gpu.operations > steps + 500
    assert list((tmp_path / "run").glob("*.safetensors")) and list(out.glob("*shot*.json"))
