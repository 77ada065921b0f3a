"""Mining latent classes: clusters of base-class prototypes label every pixel of the training images.

This reconstructs what MLC's paper describes; no code of it was released. The labels depend only on the
trained network, the training images and the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.labels import VOID
from fewseg.dataset.loading.mined import FACTS, MOST, read_facts, write_facts, write_label
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.mask import read_image
from fewseg.engine.mining.clusters import cluster
from fewseg.engine.prediction.predict import output_names
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.pooling import pool_at_image_resolution
from fewseg.model.waiting import sent
from fewseg.util.errors import DataError
from fewseg.util.log import get_log
from fewseg.util.metrics import resize_logits
from fewseg.util.progress import progress


@dataclass(frozen=True)
class MiningSettings:
    """How labels are mined; the paper does not give these settings.

    Attributes:
        clusters: number of latent classes.
        seed: seed of the clustering.
        drop: share of every image's pixels, the least certain ones, that become void.
        protect_base: whether the base classes get labels of their own instead of latent classes.
    """

    clusters: int = 100
    seed: int = 0
    drop: float = 0.0
    protect_base: bool = False


class Miner:
    """Mines the training images of a fold.

    Args:
        model: a trained prototype learner, on its device.
        fold: the fold, with its images and classes.
        shot: number of shots in training, on which the list of images depends.
        settings: see ``MiningSettings``.
        extra: paths of further, unlabelled images that are labelled too.

    Attributes:
        names: names of the training images.
        extra: name -> path of the further images.

    Raises:
        DataError: there are more latent classes than labels or prototypes.
    """

    def __init__(
        self,
        model: FewShotModel,
        fold: Fold,
        shot: int,
        settings: MiningSettings,
        extra: Sequence[Path] = (),
    ) -> None:
        self.extra = {f"extra/{name}": path for name, path in zip(output_names(extra), extra, strict=True)}
        self.model, self.settings, self.device = model.eval(), settings, model.device
        self.split = fold.classes
        self.lists = fold.train_lists(shot)
        self.store = ImageStore(self.lists.source)
        self.resize = fold.resize
        self.names = [self.lists.source.names[position] for position in self.lists.queries]
        base_classes = len(fold.classes.base) if settings.protect_base else 0
        if settings.clusters + base_classes > MOST:
            raise DataError(
                f"clusters {settings.clusters}: at most {MOST - base_classes} labels are left; ask for fewer"
            )

    @torch.inference_mode()
    def centres(self) -> Tensor:
        """Return the directions of background and latent classes, [1+clusters,C]."""
        listed = {c: frozenset(positions) for c, positions in self.lists.supports.items()}
        objects, backgrounds = [], []
        for position, name in zip(self.lists.queries, progress(self.names, "prototypes"), strict=True):
            classes = [c for c in self.lists.classes if position in listed[c]]
            background, *foreground = self._prototypes(name, classes)
            backgrounds.append(background)
            objects += foreground
        if len(objects) < self.settings.clusters:
            raise DataError(
                f"clusters {self.settings.clusters}: the training images give {len(objects)} prototypes; ask "
                "for at most as many clusters"
            )
        directions = normalize(torch.stack(objects).cpu(), dim=1)
        latent = cluster(directions, self.settings.clusters, self.settings.seed)
        centres = torch.cat([torch.stack(backgrounds).cpu().double().mean(0, keepdim=True), latent])
        return normalize(centres, dim=1).float()

    @torch.inference_mode()
    def labels(self, centres: Tensor) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every image's name and its mined label, uint8 [H,W]."""
        centres = centres.to(self.device)
        for name in progress([*self.names, *self.extra], "labels"):
            image, mask = self._pair(name)
            direction = normalize(self._feature(image), dim=1)
            yield name, self._label(torch.einsum("bchw,jc->bjhw", direction, centres), mask)

    def _pair(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in self.extra:
            return self.store.named(name)
        image = read_image(self.extra[name])
        return image, np.zeros(image.shape[:2], np.uint8)

    def _feature(self, image: np.ndarray) -> Tensor:
        encoding = self.model.encode_query(sent(self.resize.image(image)[None], self.device))
        if "feature" not in encoding:
            raise DataError("mining needs a method that compares features with prototypes; name its config")
        return encoding["feature"]

    def _prototypes(self, name: str, classes: Sequence[int]) -> Tensor:
        """Return the mean features of background and of ``classes`` in an image, [1+classes,C]."""
        image, mask = self.store.named(name)
        feature = self._feature(image)
        mask = self.resize.label(
            np.where(np.isin(mask, (*self.split.base, VOID)), mask, 0).astype(mask.dtype)
        )
        masks = sent(torch.from_numpy(np.stack([mask == c for c in (0, *classes)])), self.device)
        return pool_at_image_resolution(
            feature.expand(len(masks), -1, -1, -1), masks, align_corners=self.model.meta.align_corners
        )

    def _label(self, cosine: Tensor, mask: np.ndarray) -> np.ndarray:
        """Turn cosines [1,J,h,w] into the label of an image whose class ids are ``mask`` [H,W]."""
        cosine = resize_logits(cosine, self.resize.canvas(*mask.shape), align_corners=True)
        rows, columns = self.resize.content(*mask.shape)
        cosine = resize_logits(cosine[:, :, :rows, :columns], mask.shape, align_corners=False)
        best, order = cosine[0].topk(2, 0)
        label = order[0].to(torch.uint8).cpu().numpy()
        if self.settings.drop > 0:
            margin = (best[0] - best[1]).cpu().numpy()
            label[margin < np.quantile(margin, self.settings.drop)] = VOID
        if self.settings.protect_base:
            for rank, class_id in enumerate(self.split.base, 1):
                label[mask == class_id] = self.settings.clusters + rank
        return label


def write_mined(miner: Miner, folder: Path, facts: dict[str, object], *, overwrite: bool = False) -> int:
    """Mine and write labels, centres and facts; return the number of images.

    Complete labels that were made from the same are left as they are.

    Args:
        miner: the miner of a fold.
        folder: the folder to write to.
        facts: what the labels were made from; the settings are added.
        overwrite: whether labels that were made from something else are replaced.

    Raises:
        DataError: the folder holds labels that were made from something else.
    """
    extra = {name: str(path.resolve()) for name, path in miner.extra.items()}
    names = [*miner.names, *extra]
    facts = {**facts, **vars(miner.settings), "images": names, "extra": extra}
    earlier = read_facts(folder)
    if earlier == facts:
        get_log("mining").info("%s: labelled before; nothing left to do", folder)
        return len(names)
    if earlier is not None and not overwrite:
        raise DataError(
            f"{folder}: {_otherwise(earlier, facts)}; choose another by --out, or say --overwrite"
        )
    (folder / FACTS).unlink(missing_ok=True)  # the labels are incomplete from here on
    centres = miner.centres()
    for name, label in miner.labels(centres):
        write_label(folder, name, label)
    np.save(folder / "centres.npy", centres.cpu().numpy())
    write_facts(folder, facts)
    return len(names)


def _otherwise(earlier: Mapping[str, object], facts: Mapping[str, object]) -> str:
    """Return in words what the labels of a folder were made from, where it is something else."""
    other = [key for key, value in facts.items() if earlier.get(key) != value]
    short = {"images": "other images", "extra": "other further images", "checkpoint_hash": "other weights"}
    return f"holds labels of {', '.join(short.get(key, f'{key} {earlier.get(key)}') for key in other)}"
