"""BatchNorm that normalises by its batch in evaluation too."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import batch_norm


class BatchStatistics(nn.BatchNorm2d):
    """BatchNorm by the statistics of its batch in every mode; only training updates the stored ones."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == x.shape[1]:
            raise ValueError(
                f"BatchNorm cannot normalise one value per channel ({list(x.shape)}) by its batch; use "
                "larger images or set bn_mode: running"
            )
        if self.training:
            return super().forward(x)
        return batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


def use_batch_statistics(network: nn.Module) -> None:
    """Replace every BatchNorm2d in ``network`` by a ``BatchStatistics`` with the same weights."""
    for name, child in network.named_children():
        if type(child) is nn.BatchNorm2d:
            replacement = BatchStatistics(child.num_features, child.eps, child.momentum)
            replacement.load_state_dict(child.state_dict())
            setattr(network, name, replacement)
        else:
            use_batch_statistics(child)
