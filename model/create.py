"""The registries of all parts, and the functions that build a network from their names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fewseg.model.adapt.eftnet import EFTNet
from fewseg.model.backbone.resnet import BLOCKS, ResNet
from fewseg.model.backbone.vgg import VGG16
from fewseg.model.base.pspnet import PSPNet
from fewseg.model.compatibility import check_backbone, check_images, check_parts, check_shared_backbone
from fewseg.model.contract import Backbone, BaseLearner, BuildArguments, MetaLearner
from fewseg.model.ensemble import BaseMetaEnsemble
from fewseg.model.fewshot import FewShotModel
from fewseg.model.meta.bam import BAM
from fewseg.model.meta.canet.canet import CANet
from fewseg.model.meta.fsil import FSIL
from fewseg.model.meta.fss1000.fss1000 import FSS1000
from fewseg.model.meta.hdmnet.hdmnet import HDMNet
from fewseg.model.meta.hsnet.hsnet import HSNet
from fewseg.model.meta.mianet.mianet import MIANet
from fewseg.model.meta.mlc.mlc import MLC, MLCReconstruction
from fewseg.model.meta.msanet.msanet import MSANet
from fewseg.model.meta.oslsm.oslsm import OSLSM
from fewseg.model.meta.panet import PANet
from fewseg.model.meta.pfenet.pfenet import PFENet
from fewseg.model.meta.plnet.plnet import PLNet
from fewseg.model.meta.pmm import PMM
from fewseg.model.meta.rare import RARE
from fewseg.model.meta.rpmm import RPMM
from fewseg.model.meta.sgone import SGOne
from fewseg.model.options import OptionError, build_options, checked_arguments, known_part

METHODS: dict[str, type[MetaLearner]] = {
    "bam": BAM,
    "canet": CANet,
    "fsil": FSIL,
    "fss1000": FSS1000,
    "hdmnet": HDMNet,
    "hsnet": HSNet,
    "mianet": MIANet,
    "mlc": MLC,
    "mlc-reconstruction": MLCReconstruction,
    "msanet": MSANet,
    "oslsm": OSLSM,
    "panet": PANet,
    "pfenet": PFENet,
    "plnet": PLNet,
    "pmm": PMM,
    "rare": RARE,
    "rpmm": RPMM,
    "sgone": SGOne,
}
ADAPTERS: dict[str, type[EFTNet]] = {"eftnet": EFTNet}
BASE_LEARNERS: dict[str, type[BaseLearner]] = {"pspnet": PSPNet}
ENSEMBLES: dict[str, type[BaseMetaEnsemble]] = {"bam": BaseMetaEnsemble}
BACKBONES: dict[str, partial[Any]] = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in BLOCKS},
    "vgg16": partial(VGG16),
}

_METHOD_DEFAULT = "default"


def list_models() -> list[str]:
    """Return the names of all methods."""
    return sorted(METHODS)


def create_backbone(name: str, **options: object) -> Backbone:
    """Build a backbone with random weights.

    Args:
        name: ``resnet18``, ``resnet50``, ``resnet101``, ``resnet152`` or ``vgg16``.
        options: keyword arguments of that network; see ``model/backbone``.
    """
    network = known_part("backbone", "backbone", name, BACKBONES)
    return network(**checked_arguments(name, network, options))


def create_base_learner(
    name: str, *, backbone: str | Backbone, classes: int, backbone_options: Mapping[str, object] | None = None
) -> BaseLearner:
    """Build a base learner with random weights: image [B,3,H,W] -> logits [B,classes,H,W].

    Args:
        name: ``pspnet``.
        backbone: its name, or a network.
        classes: output channels, background included.
        backbone_options: keyword arguments of a backbone that is given by name.
    """
    if isinstance(backbone, str):
        backbone = create_backbone(backbone, **(backbone_options or {}))
    return known_part("base", "base learner", name, BASE_LEARNERS)(backbone, classes)


def create_model(
    name: str,
    *,
    backbone: str | Backbone = "resnet50",
    shot: int = 1,
    base_classes: int = 15,
    image_size: int = 473,
    base: str | None = _METHOD_DEFAULT,
    ensemble: str | None = _METHOD_DEFAULT,
    low_fea: str = "low",
    base_dropout: bool = True,
    aux_weights: tuple[float, float] = (1.0, 1.0),
    backbone_options: Mapping[str, object] | None = None,
    ensemble_options: Mapping[str, object] | None = None,
    **options: object,
) -> FewShotModel:
    """Compose a few-shot model with random weights.

    Args:
        name: name of the method, one of ``list_models()``.
        backbone: name of the backbone, or a network, which is used unchanged.
        shot: supports per way, K.
        base_classes: number of base classes of the fold.
        image_size: side of the square input in pixels.
        base: the base learner, ``pspnet`` or None; by default as in the published method.
        ensemble: the ensemble of base and meta learner, ``bam`` or None; by default as published.
        low_fea: feature of the backbone, or role, whose Gram matrices measure how similar two scenes are.
        base_dropout, aux_weights: see ``FewShotModel``.
        backbone_options: keyword arguments of a backbone that is given by name; they override those of the
            published method.
        ensemble_options: options of the ensemble; see the dataclass in its file.
        options: options of the method; see the dataclass in its file.

    Raises:
        ValueError: a name or an option that does not exist, or parts that cannot be combined.
    """
    method = known_part("arch", "method", name, METHODS)
    base = method.published.base if base == _METHOD_DEFAULT else base
    if ensemble == _METHOD_DEFAULT:
        ensemble = method.published.ensemble if base is not None else None
    check_parts(name, method, base, ensemble)
    chosen = build_options(name, method.Options, options)
    extractor = _extractor(name, method, backbone, backbone_options or {})
    known_part("low_fea", "feature", low_fea, dict.fromkeys(["low", *extractor.spec.features]))
    check_backbone(name, method, extractor)
    meta = method(BuildArguments(extractor, shot, base_classes, image_size, low_fea), chosen)
    check_images(name, meta, extractor, image_size)
    head = None
    if base is not None:
        check_shared_backbone(name, meta, extractor)
        head = create_base_learner(base, backbone=extractor, classes=base_classes + 1).head
    merger = _ensemble(ensemble, low_fea, ensemble_options or {})
    model = FewShotModel(extractor, meta, head, merger, base_dropout=base_dropout, aux_weights=aux_weights)
    if not any(model.param_groups().values()):
        raise ValueError(
            f"{name} trains only its backbone, which a base learner keeps frozen; leave the base learner "
            "out (base: none)"
        )
    return model


def create_adapter(name: str, model: FewShotModel, **options: object) -> EFTNet:
    """Return the test-time adaptation of a trained model: a callable, episode -> prediction.

    Args:
        name: ``eftnet``.
        model: the trained model, which is changed during a call and restored at its end.
        options: options of the adaptation; see the dataclass in its file.

    Raises:
        ValueError: a name or an option that does not exist, or a method that cannot be adapted.
    """
    adapter = known_part("adapt", "adapter", name, ADAPTERS)
    return adapter(model, build_options(name, adapter.Options, options))


def _ensemble(name: str | None, low_feature: str, options: Mapping[str, object]) -> BaseMetaEnsemble | None:
    """Build the ensemble of a model, or None if it has none."""
    if name is None:
        if options:
            raise OptionError(
                "ensemble_options", "options are for an ensemble, and there is none; leave them out"
            )
        return None
    ensemble = known_part("ensemble", "ensemble", name, ENSEMBLES)
    group = "ensemble_options"
    try:
        chosen = build_options(f"the ensemble {name}", ensemble.Options, options, group)
    except OptionError:
        raise
    except ValueError as failure:
        raise OptionError(group, str(failure)) from failure
    return ensemble(low_feature, chosen)


def _extractor(
    name: str, method: type[MetaLearner], backbone: str | Backbone, options: Mapping[str, object]
) -> Backbone:
    """Build the backbone of a method by name, or return a backbone that is given as a network."""
    if isinstance(backbone, Backbone):
        if options:
            raise OptionError("backbone_options", "options are for a backbone given by name; leave them out")
        return backbone
    if "inputs" in options:
        raise OptionError(
            "backbone_options.inputs", f"{name} sets the number of input channels itself; leave out inputs"
        )
    network = known_part("backbone", "backbone", backbone, BACKBONES)
    variant = method.published.backbone_variants.get(network.func.family, {})
    return create_backbone(backbone, **{**variant, **options})
