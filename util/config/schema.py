"""The typed sections of a config file. Key names are BAM's, because that is what this field's users edit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fewseg.util.files import is_path

FOLDS: dict[str, int] = {"pascal": 4, "coco": 4, "shapes": 4, "fss1000": 1}
"""Folds of a data set. A data set of one's own (``folder``) may have any number."""


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _path(value: Any) -> Any:
    if isinstance(value, str) and not is_path(value):
        raise ValueError("must be a path, without control characters and not over-long")
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _none_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() in ("", "none") else value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Protocol = Literal["bam", "pfenet", "hsnet", "panet", "mlc"]
Adaptation = Literal["eftnet"]
Int = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1, le=10_000)]
Epochs = Annotated[Int, Field(ge=1, le=100_000)]
Episodes = Annotated[Int, Field(ge=1, le=1_000_000)]
Fold = Annotated[Int, Field(ge=0, le=999)]
Few = Annotated[Int, Field(ge=1, le=100)]
"""Supports, ways: what fits into one episode."""
Positive = Annotated[Number, Field(gt=0, le=1e6)]
NotNegative = Annotated[Number, Field(ge=0, le=1e6)]
Rate = Annotated[Number, Field(gt=0, le=1000)]
Scale = Annotated[Number, Field(ge=0.05, le=20)]
Angle = Annotated[Number, Field(ge=-360, le=360)]
Share = Annotated[Number, Field(ge=0, le=1)]
Size = Annotated[Int, Field(ge=32, le=4096)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[\w./-]*$", max_length=100), BeforeValidator(_lower)]
OptionalName = Annotated[Name | None, BeforeValidator(_empty_is_none)]
Unset = BeforeValidator(_none_is_none)
"""Lets a key that may be unset be switched off by ``None`` on the command line, where it is text."""
Path = Annotated[str, BeforeValidator(_path)]
OptionalPath = Annotated[str | None, BeforeValidator(_path), BeforeValidator(_empty_is_none)]
OneOrMore = Annotated[tuple[Path, ...], BeforeValidator(_one_or_more), Field(min_length=1, max_length=100)]
Scales = Annotated[tuple[Annotated[Number, Field(gt=0, le=1000)], ...], Field(min_length=1, max_length=10)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)]
Folds = Annotated[tuple[Fold, ...], Field(min_length=1, max_length=100)]
Shots = Annotated[tuple[Few, ...], Field(min_length=1, max_length=100)]


class Section(BaseModel):
    """A part of the config; read-only once built."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Data(Section):
    """What is read and how it is cut: data set, fold, episode form, image sizes, augmentation."""

    data_set: Annotated[Literal["pascal", "coco", "fss1000", "shapes", "folder"], BeforeValidator(_lower)] = (
        "pascal"
    )
    data_root: OptionalPath = None
    train_list: OptionalPath = None
    val_list: OptionalPath = None
    use_split_coco: bool = False
    split: Fold = 0
    shot: Few = 1
    ways: Few = 1
    protocol: Annotated[Protocol, BeforeValidator(_lower)] = "bam"
    protocol_options: dict[str, Any] = Field(default_factory=dict)
    """Points in which a run departs from its protocol, checked by the protocol; docs/protocols.md."""
    novel_in_train: Annotated[Literal["remove", "background"] | None, Unset] = None
    """What becomes of training images that hold novel classes; unset: as the protocol says."""
    auxiliary: Annotated[Int, Field(ge=0, le=100)] = 0
    """Images per class beside the supports, for methods that can use them."""
    mined_labels: OptionalPath = None
    """Folder of mined labels, which auxiliary images are taken from where the method learns from such."""
    ann_type: Annotated[Literal["mask", "bbox", "largest_bbox", "scribble"], BeforeValidator(_lower)] = "mask"
    ann_seed: Seed = 0
    """What scribbles are drawn with, besides the image and its mask."""
    train_h: Size = 473
    train_w: Size = 473
    val_size: Size = 473
    scale_min: Scale = 0.9
    scale_max: Scale = 1.1
    rotate_min: Angle = -10.0
    rotate_max: Angle = 10.0
    resized_val: bool = True
    ori_resize: bool = True


class Train(Section):
    """The training loop: optimiser, schedule, validation, what is kept."""

    batch_size: Count = 8
    """Over all processes together."""
    batch_size_val: Count = 1
    base_lr: Rate = 0.005
    epochs: Epochs = 200
    start_epoch: Annotated[Int, Field(ge=0)] = 0
    stop_interval: Epochs = 75
    index_split: Annotated[Int, Field(ge=-1, le=999)] = -1
    """Parameter groups after this one learn 10 times as fast; -1: all of them."""
    power: Annotated[Number, Field(ge=0, le=100)] = 0.9
    milestones: Annotated[tuple[Share, ...], Field(max_length=100)] = ()
    """Shares of the training after each of which the rate drops to a tenth."""
    warmup: bool = False
    momentum: Annotated[Number, Field(ge=0, le=0.9999)] = 0.9
    weight_decay: Annotated[Number, Field(ge=0, le=100)] = 1e-4
    clip_norm: Annotated[Positive | None, Unset] = None
    """Every parameter group's gradient is shortened to this norm; unset: left as it is."""
    optimizer: Annotated[Literal["sgd", "adamw", "adam"], BeforeValidator(_lower)] = "sgd"
    manual_seed: Annotated[Seed | None, Unset] = 321
    seed_deterministic: bool = False
    fix_random_seed_val: bool = True
    fix_bn: Annotated[bool | None, Unset] = None
    """Whether every BatchNorm keeps its running statistics; unset: as the method was published."""
    aux_weight: Annotated[NotNegative | None, Unset] = None
    aux_weight1: Annotated[NotNegative | None, Unset] = None
    aux_weight2: Annotated[NotNegative | None, Unset] = None
    workers: Annotated[Int, Field(ge=0, le=256)] = 8
    print_freq: Episodes = 10
    save_freq: Epochs = 10
    save_minutes: Annotated[Annotated[Number, Field(gt=0, le=100_000)] | None, Unset] = 10
    """Minutes after which a snapshot is written, wherever in an epoch; unset: at ends of epochs only."""
    save_path: OptionalPath = None
    weight: OptionalPath = None
    """A checkpoint whose weights training starts from."""
    resume: OptionalPath = None
    """A snapshot of an interrupted run to go on with; ``auto``: this run's own, if it ever began."""
    evaluate: bool = True
    val_freq: Epochs = 1
    """Epochs between two validations; the last epoch is always followed by one."""
    SubEpoch_val: bool = False
    val_episodes: Episodes = 1000
    amp: bool = False
    compile: bool = False


class Method(Section):
    """The network. ``None`` leaves a choice to the method's own default."""

    arch: Name
    backbone: Name = "resnet50"
    base: OptionalName = None
    """The base learner, or ``none``; unset: as the method was published. The same for ``ensemble``."""
    ensemble: OptionalName = None
    pretrained: OptionalPath = None
    """``none``, ``imagenet``, or the path of a backbone's weights."""
    base_weight: OptionalPath = None
    """Checkpoint of the base learner, for stage 2."""
    low_fea: OptionalName = None
    kshot_trans_dim: Annotated[Annotated[Int, Field(ge=0, le=4096)] | None, Unset] = None
    ppm_scales: Annotated[Scales | None, Unset] = None
    merge_tau: Share = 0.9
    options: dict[str, Any] = Field(default_factory=dict)
    """The method's own switches, checked by the method."""
    backbone_options: dict[str, Any] = Field(default_factory=dict)
    """The backbone's own switches, checked by the backbone."""


class TestFinetune(Section):
    """Evaluation and test-time adaptation."""

    weight: OptionalPath = None
    """The checkpoint to test; unset: the run's best."""
    test_protocol: Annotated[Protocol | None, BeforeValidator(_lower), Unset] = None
    """What models are tested under, where that is not ``Data.protocol``, which they are trained under."""
    generalized: bool = False
    """Test generalised few-shot segmentation: base and novel classes at once."""
    untrained: bool = False
    """Test the network with random weights, too."""
    episodes_file: OneOrMore | None = None
    """Manifests of test episodes, one per seed; unset: drawn as the protocol says."""
    episodes: Annotated[Episodes | None, Unset] = None
    """Per seed; unset: as the protocol says."""
    seeds: Annotated[Seeds | None, Unset] = None
    folds: Annotated[Folds | None, Unset] = None
    shots: Annotated[Shots | None, Unset] = None
    cache_gib: Annotated[Number, Field(gt=0, le=10_000)] = 4.0
    """Memory for encodings that later episodes need again."""
    panels: Annotated[Int, Field(ge=0, le=100_000)] = 8
    """Episodes that are drawn as pictures."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    adapt: Annotated[Adaptation | None, BeforeValidator(_lower), Unset] = None
    adapt_options: dict[str, Any] = Field(default_factory=dict)
    """The adaptation's own switches, checked by the adaptation."""


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
    "Test_Finetune.adapt_options",
)
"""Keys whose mappings are checked elsewhere; these merge name by name."""


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
    if train.start_epoch >= train.epochs:
        yield "Train.start_epoch", f"must be below epochs = {train.epochs}, got {train.start_epoch}"
    for name in ("seeds", "folds", "shots"):
        values = getattr(test, name) or ()
        if len(set(values)) < len(values):
            yield f"Test_Finetune.{name}", f"must not name a value twice, got {list(values)}"
    for low, high in (("scale_min", "scale_max"), ("rotate_min", "rotate_max")):
        if getattr(data, low) > getattr(data, high):
            yield f"Data.{low}", f"must not exceed {high} = {getattr(data, high)}, got {getattr(data, low)}"
