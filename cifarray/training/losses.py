"""The loss of a batch whose images may be mixed of two.

Shapes: N rows of a step on this rank, K classes.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cifarray.training.batches import Batch


def summed_loss(logits_NK: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """The sum of the rows' cross-entropies, in float32 at least.

    A mixed image's is that of its two labels, each by its share: mixup's own way to say that the
    target is the mixture of both.
    """
    logits_NK = logits_NK.float() if logits_NK.dtype == torch.bfloat16 else logits_NK
    loss = partial(cross_entropy, logits_NK, label_smoothing=label_smoothing)
    if batch.second is None:
        return loss(batch.labels_N, reduction="sum")
    shares_N = batch.second.shares_N.to(logits_NK.dtype)
    own_N = loss(batch.labels_N, reduction="none")
    others_N = loss(batch.second.labels_N, reduction="none")
    return (own_N + shares_N * (others_N - own_N)).sum()
