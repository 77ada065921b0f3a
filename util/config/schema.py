"""The typed sections of a config file. Key names are BAM's, because that is what this field's users edit.

All that is said about a key is said here alone: its type, range and default, what it changes (``Effect``),
and in the text below it the description, which ``tools/write_tables.py`` copies into docs/config.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fewseg.util.config import types as t
from fewseg.util.config.types import METHOD_OPTION, AnyCase, Effect, Unset

FOLDS: dict[str, int] = {
    **{"pascal": 5, "coco": 5, "shapes": 5, "fss1000": 1, "shapes1000": 1},
    **{"deepglobe": 1, "isic": 1, "chest_xray": 1},
}
"""Number of folds of a data set. A data set of one's own (``folder``) may have any number.

Of five folds the last one trains on all classes and tests none: its models are tested on other data.
"""


_Annotation = Literal["mask", "bbox", "largest_bbox", "scribble"]


class Section(BaseModel):
    """A part of the config; read-only once built."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )


class Data(Section):
    """What is read and how it is cut: data set, fold, episode form, image sizes, augmentation."""

    data_set: Annotated[
        Literal[
            "pascal", "coco", "fss1000", "shapes", "shapes1000", "folder", "deepglobe", "isic", "chest_xray"
        ],
        AnyCase,
        Effect.NAME,
    ] = "pascal"
    """The data set; ``folder`` is data of your own."""
    data_root: Annotated[t.OptionalPath, Effect.NAME] = None
    """The folder of the data set."""
    train_list: Annotated[t.OptionalPath, Effect.TRAINING] = None
    """The list of training images; by default the data set's own."""
    val_list: Annotated[t.OptionalPath, Effect.BOTH] = None
    """The list of images for validation and test; by default the data set's own."""
    use_split_coco: Annotated[bool, Effect.TRAINING] = False
    """COCO: every fourth class makes a fold (FWB), instead of twenty consecutive ones."""
    split: Annotated[t.Fold, Effect.NAME] = 0
    """The fold."""
    shot: Annotated[t.Few, Effect.NAME] = 1
    """Supports per class, K."""
    ways: Annotated[t.Few, Effect.BOTH] = 1
    """Classes per episode, N."""
    protocol: Annotated[t.Name, Effect.BOTH] = "bam"
    """The protocol ([protocols.md](protocols.md)) of training, and of testing without ``test_protocol``."""
    protocol_options: Annotated[dict[str, Any], Effect.BOTH] = Field(default_factory=dict)
    """The points in which this run departs from the protocol; the protocol checks them."""
    novel_in_train: Annotated[Literal["remove", "background"] | None, Unset, Effect.TRAINING] = None
    """Training images with novel classes: they are removed, or their novel pixels become background."""
    auxiliary: Annotated[t.Int, Field(ge=0, le=100), Effect.BOTH] = 0
    """Further images per class: with image-level labels (``fsil``) or mined ones (``mlc-reconstruction``)."""
    mined_labels: Annotated[t.OptionalPath, Effect.TRAINING] = None
    """The folder of mined labels, in which ``{fold}`` is filled in ([methods.md](methods.md))."""
    ann_type: Annotated[_Annotation, AnyCase, Effect.BOTH] = "mask"
    """How supports are annotated."""
    ann_seed: Annotated[t.Seed, Effect.BOTH] = 0
    """The seed of the scribbles that are drawn for supports."""
    train_h: Annotated[t.Size, Effect.TRAINING] = 473
    """Height of the network's input in training, in pixels; it must equal ``train_w``."""
    train_w: Annotated[t.Size, Effect.TRAINING] = 473
    """Width of the network's input in training, in pixels."""
    val_size: Annotated[t.Size, Effect.BOTH] = 473
    """Side of the network's input in validation and test, in pixels."""
    scale_min: Annotated[t.Scale, Effect.TRAINING] = 0.9
    """Augmentation: the smallest factor by which an image is scaled."""
    scale_max: Annotated[t.Scale, Effect.TRAINING] = 1.1
    """Augmentation: the largest factor by which an image is scaled."""
    rotate_min: Annotated[t.Angle, Effect.TRAINING] = -10.0
    """Augmentation: the smallest angle of rotation, in degrees."""
    rotate_max: Annotated[t.Angle, Effect.TRAINING] = 10.0
    """Augmentation: the largest angle of rotation, in degrees."""
    resized_val: Annotated[bool, Effect.BOTH] = True
    """Whether test images smaller than ``val_size`` are upsampled to it."""
    ori_resize: Annotated[bool, Effect.BOTH] = True
    """Whether predictions are scored at the original size of the label."""


class Train(Section):
    """The training loop: optimiser, schedule, validation, what is kept."""

    batch_size: Annotated[t.Count, Effect.TRAINING] = 8
    """Batch size over all processes together; published files give it per GPU."""
    accumulate: Annotated[t.Count, Effect.TRAINING] = 1
    """Number of parts of a batch, whose gradients are added up: a step takes the memory of one part."""
    batch_size_val: Annotated[t.Count, Effect.NOTHING] = 1
    """Batch size of a base learner's validation."""
    base_lr: Annotated[t.Rate, Effect.TRAINING] = 0.005
    """The learning rate at the start."""
    epochs: Annotated[t.Epochs, Effect.TRAINING] = 200
    """Length of the training."""
    max_steps: Annotated[t.Steps | None, Unset, Effect.TRAINING] = None
    """Number of steps after which training ends, also within an epoch, unless ``epochs`` end it before."""
    start_epoch: Annotated[t.Int, Field(ge=0), Effect.TRAINING] = 0
    """The epoch that a new training starts at."""
    stop_interval: Annotated[t.Epochs, Effect.TRAINING] = 75
    """Training stops at a validation when there was no new best score for this number of epochs."""
    index_split: Annotated[t.Int, Field(ge=-1, le=999), Effect.TRAINING] = -1
    """Parameter groups after this one learn 10 times as fast; with -1 all of them do."""
    power: Annotated[t.Number, Field(ge=0, le=100), Effect.TRAINING] = 0.9
    """Exponent of the polynomial decay of the learning rate, per iteration; 0: no decay."""
    milestones: Annotated[tuple[t.Share, ...], Field(max_length=100), Effect.TRAINING] = ()
    """Shares of the training after which the rate drops to a tenth; ``power: 0`` leaves only these steps."""
    warmup: Annotated[bool, Effect.TRAINING] = False
    """Whether the learning rate rises linearly at the start."""
    momentum: Annotated[t.Number, Field(ge=0, le=0.9999), Effect.TRAINING] = 0.9
    """Momentum of the optimiser."""
    weight_decay: Annotated[t.Number, Field(ge=0, le=100), Effect.TRAINING] = 1e-4
    """Weight decay of the optimiser."""
    clip_norm: Annotated[t.Positive | None, Unset, Effect.TRAINING] = None
    """The gradient of every parameter group is shortened to this norm before a step."""
    optimizer: Annotated[Literal["sgd", "adamw", "adam"], AnyCase, Effect.TRAINING] = "sgd"
    """The optimiser."""
    manual_seed: Annotated[t.Seed | None, Unset, Effect.TRAINING] = 321
    """The seed of all random draws; ``None`` draws one."""
    seed_deterministic: Annotated[bool, Effect.NOTHING] = False
    """Whether slower operations are used that give the same digits in every run."""
    fix_random_seed_val: Annotated[bool, Effect.TRAINING] = True
    """Whether every validation uses the same episodes."""
    fix_bn: Annotated[bool | None, Unset, Effect.TRAINING] = None
    """Whether every BatchNorm keeps its running statistics."""
    aux_weight: Annotated[t.Number | None, Unset, METHOD_OPTION, Effect.TRAINING] = None
    """The published key of the method's option of this name: the weight of the inner losses."""
    aux_weight1: Annotated[t.NotNegative | None, Unset, Effect.TRAINING] = None
    """Weight of the meta-learner's loss beside the ensemble's; ``None``: 1."""
    aux_weight2: Annotated[t.NotNegative | None, Unset, Effect.TRAINING] = None
    """Weight of the base learner's loss beside the ensemble's; ``None``: 1."""
    workers: Annotated[t.Int, Field(ge=0, le=256), Effect.NOTHING] = 8
    """Number of loader processes, in training, and in a test on a GPU (on a CPU a thread reads its images).

    They pass batches through shared memory, of which Docker gives 64 MB (``docker run --shm-size 8g``); 0
    needs none.
    """
    print_freq: Annotated[t.Episodes, Effect.NOTHING] = 10
    """Iterations between two points of the curves, for which the host waits for the GPU."""
    save_freq: Annotated[t.Epochs, Effect.NOTHING] = 10
    """Epochs between two snapshots."""
    save_minutes: Annotated[Annotated[t.Number, Field(gt=0, le=100_000)] | None, Unset, Effect.NOTHING] = 10
    """Minutes between two snapshots, also within an epoch; ``None``: at the ends of epochs only."""
    save_path: Annotated[t.OptionalPath, Effect.NOTHING] = None
    """Folder of the run, with ``{fold}``, ``{shot}`` and ``{key}`` filled in; ``None``: as said below."""
    weight: Annotated[t.OptionalPath, Effect.TRAINING] = None
    """A checkpoint whose weights the training starts from."""
    resume: Annotated[t.OptionalPath, Effect.NOTHING] = None
    """A snapshot that the training goes on from; ``auto``: the run's own where there is one."""
    evaluate: Annotated[bool, Effect.TRAINING] = True
    """Whether the model is validated during training."""
    val_freq: Annotated[t.Epochs, Effect.TRAINING] = 1
    """Epochs between two validations; the last epoch is always followed by one."""
    SubEpoch_val: Annotated[bool, Effect.TRAINING] = False
    """Whether there is a validation at half epochs too."""
    val_episodes: Annotated[t.Episodes, Effect.TRAINING] = 1000
    """Episodes of a validation."""
    amp: Annotated[t.Reduced, Effect.TRAINING] = False
    """``bfloat16`` (or ``True``): mixed precision; losses and comparisons of features stay in float32."""
    tf32: Annotated[bool, Effect.NOTHING] = True
    """Whether GPUs may round the factors of float32 products to 10 bits (TF32), as cuDNN's default is."""
    compile: Annotated[t.Compiled, Effect.NOTHING] = False
    """Whether ``torch.compile`` compiles the network, or its mode; ``reduce-overhead`` uses CUDA graphs."""


class Method(Section):
    """The network. ``None`` leaves a choice to the method's own default."""

    arch: Annotated[t.Name, Effect.NAME]
    """The method; ``pspnet`` is the base learner (stage 1)."""
    backbone: Annotated[t.Name, Effect.NAME] = "resnet50"
    """The feature extractor."""
    base: Annotated[t.OptionalName, Effect.TRAINING] = None
    """The base learner, or ``none``."""
    ensemble: Annotated[t.OptionalName, Effect.TRAINING] = None
    """How the predictions of base and meta-learner are merged, or ``none``."""
    pretrained: Annotated[t.OptionalPath, Effect.TRAINING] = None
    """The backbone's weights at the start: ``none``, ``imagenet``, or a file, which may be a run's."""
    base_weight: Annotated[t.OptionalPath, Effect.TRAINING] = None
    """The base learner's checkpoint for stage 2; ``None`` or ``auto``: the one trained here that fits."""
    low_fea: Annotated[t.OptionalName, Effect.TRAINING] = None
    """A feature or role of the backbone: its Gram matrices tell the ensemble how similar two scenes are."""
    kshot_trans_dim: Annotated[t.Int | None, Unset, METHOD_OPTION, Effect.TRAINING] = None
    """The published key for the method's option of this name."""
    ppm_scales: Annotated[tuple[t.Number, ...] | None, Unset, METHOD_OPTION, Effect.TRAINING] = None
    """The published key for the method's option of this name."""
    merge_tau: Annotated[t.Share, Effect.TEST] = 0.9
    """Generalised few-shot segmentation: a pixel is of the novel class where its probability exceeds this."""
    options: Annotated[dict[str, Any], Effect.BOTH] = Field(default_factory=dict)
    """The options of the method, which checks them ([methods.md](methods.md))."""
    backbone_options: Annotated[dict[str, Any], Effect.TRAINING] = Field(default_factory=dict)
    """The options of the backbone, which checks them."""
    ensemble_options: Annotated[dict[str, Any], Effect.TRAINING] = Field(default_factory=dict)
    """The options of the ensemble, which checks them ([methods.md](methods.md))."""


class TestFinetune(Section):
    """Evaluation and test-time adaptation."""

    weight: Annotated[t.OptionalPath, Effect.TEST] = None
    """The checkpoint to test; ``None``: the run's best."""
    data: Annotated[t.OptionalPath, Effect.TEST] = None
    """A config of the data to test on ([protocols.md](protocols.md)); ``None``: those of the training."""
    data_opts: Annotated[dict[str, Any], Effect.TEST] = Field(default_factory=dict)
    """Changes to the keys of that file, such as ``data_root``; with ``split``, only that fold is tested."""
    embeddings: Annotated[t.OneOrMore | None, Effect.TEST] = None
    """The word vectors of the classes of ``data``, for methods that read them; see ``Method.options``."""
    test_protocol: Annotated[t.Name | None, Unset, Effect.TEST] = None
    """The protocol to test under; ``None``: that of ``data`` if it names one, or else ``Data.protocol``."""
    test_ann_type: Annotated[_Annotation | None, AnyCase, Unset, Effect.TEST] = None
    """How supports are annotated in the test; ``None``: ``Data.ann_type``, as in the training."""
    generalized: Annotated[bool, Effect.TEST] = False
    """Whether base classes are segmented too (generalised few-shot segmentation), with both ways to merge."""
    untrained: Annotated[bool, Effect.NOTHING] = False
    """Whether the same network with random weights is tested too, as one of the baselines."""
    episodes_file: Annotated[t.OneOrMore | None, Effect.TEST] = None
    """Manifests of the episodes to test on, one per seed; ``None``: they are drawn as the protocol says."""
    episodes: Annotated[t.Episodes | None, Unset, Effect.TEST] = None
    """Episodes per seed."""
    seeds: Annotated[t.Seeds | None, Unset, Effect.TEST] = None
    """The seeds that episodes are drawn with."""
    folds: Annotated[t.Folds | None, Unset, Effect.NOTHING] = None
    """The folds to test; ``None``: ``split``."""
    shots: Annotated[t.Shots | None, Unset, Effect.NOTHING] = None
    """The numbers of supports to test with; ``None``: ``shot``."""
    cache_gib: Annotated[t.Number, Field(gt=0, le=10_000), Effect.NOTHING] = 4.0
    """Memory in GiB for encodings that later episodes need again."""
    panels: Annotated[t.Int, Field(ge=0, le=100_000), Effect.NOTHING] = 8
    """Number of episodes that are drawn as pictures."""
    visualise: Annotated[t.Int, Field(ge=0, le=100), Effect.NOTHING] = 0
    """Figures after the test: so many best, worst and typical episodes, their maps and encodings; 0: none."""
    query_scales: Annotated[tuple[t.Scale, ...], Field(min_length=1, max_length=10), Effect.TEST] = (1.0,)
    """Multi-scale testing: factors of the sides of copies of each query, whose predictions are averaged."""
    precision: Annotated[Literal["float32", "bfloat16", "float16"], Effect.TEST] = "float32"
    """The precision that the network is tested in; a reduced one cannot be combined with ``adapt``.

    What a reduced one changes, and where it is faster, is measured in
    [benchmarks.md](benchmarks.md#reduced-precision).
    """
    adapt: Annotated[Literal["eftnet"] | None, AnyCase, Unset, Effect.TEST] = None
    """Test-time adaptation."""
    adapt_options: Annotated[dict[str, Any], Effect.TEST] = Field(default_factory=dict)
    """The options of the adaptation, which checks them ([methods.md](methods.md))."""


SECTIONS: dict[str, type[Section]] = {
    "Data": Data,
    "Train": Train,
    "Method": Method,
    "Test_Finetune": TestFinetune,
}

FREE_MAPPINGS = (
    "Data.protocol_options",
    "Method.options",
    "Method.backbone_options",
    "Method.ensemble_options",
    "Test_Finetune.data_opts",
    "Test_Finetune.adapt_options",
)
"""Keys whose mappings are checked elsewhere; several files' mappings are merged option by option."""


def default_of(key_path: str) -> Any:
    """Return the default of a key (``Data.split``), a list for a tuple; None for an unknown key."""
    section, _, key = key_path.partition(".")
    field = SECTIONS[section].model_fields.get(key) if section in SECTIONS else None
    default = None if field is None or field.is_required() else field.get_default(call_default_factory=True)
    return list(default) if isinstance(default, tuple) else default


@lru_cache
def keys_marked(*marks: object) -> frozenset[str]:
    """Return the key paths (``Data.split``) with one of these marks: an ``Effect``, ``METHOD_OPTION``."""
    return frozenset(
        f"{name}.{key}"
        for name, section in SECTIONS.items()
        for key, field in section.model_fields.items()
        if any(mark in field.metadata for mark in marks)
    )


def contradictions(data: Data, train: Train, test: TestFinetune) -> Iterator[tuple[str, str]]:
    """Yield (key path, what is wrong) for values that do not fit together."""
    folds = FOLDS.get(data.data_set)
    if folds is not None:
        allowed = (
            f"{data.data_set} has the folds 0 to {folds - 1}"
            if folds > 1
            else f"{data.data_set} has fold 0 only"
        )
        if data.split >= folds:
            yield "Data.split", f"{allowed}, got {data.split}"
        for fold in test.folds or ():
            if fold >= folds:
                yield "Test_Finetune.folds", f"{allowed}, got {fold}"
    if train.batch_size % train.accumulate:
        yield "Train.accumulate", f"must divide batch_size = {train.batch_size}, got {train.accumulate}"
    if train.start_epoch >= train.epochs:
        yield "Train.start_epoch", f"must be below epochs = {train.epochs}, got {train.start_epoch}"
    for name in ("seeds", "folds", "shots", "query_scales"):
        values = getattr(test, name) or ()
        if len(set(values)) < len(values):
            yield f"Test_Finetune.{name}", f"must not name a value twice, got {list(values)}"
    if 1 not in test.query_scales:
        yield "Test_Finetune.query_scales", f"must contain 1, the query itself; got {list(test.query_scales)}"
    for low, high in (("scale_min", "scale_max"), ("rotate_min", "rotate_max")):
        if getattr(data, low) > getattr(data, high):
            yield f"Data.{low}", f"must not exceed {high} = {getattr(data, high)}, got {getattr(data, low)}"
