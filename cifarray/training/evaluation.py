"""What a network says about every row of a shard, and the exact figures over all ranks.

Evaluation runs in eval mode, in float32, without augmentation. Shapes: N rows, K classes.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy, pad

from cifarray.data.augment.normalize import Normalize
from cifarray.data.shard import Shard
from cifarray.report.scores import Predictions
from cifarray.training.distributed import sum_over_ranks

EVALUATION_BATCH = 256
"""Every batch is filled up to this size: a row's logits then do not depend on how many rows stand
beside it, and so not on how many workers share them."""


@torch.no_grad()
def predict_shard(model: nn.Module, shard: Shard, normalize: Normalize) -> Predictions:
    """Evaluate every row of a shard once."""
    was_training = model.training
    model.eval()
    columns: list[tuple[NDArray[Any], ...]] = []
    for rows in shard.in_order(EVALUATION_BATCH):
        images_NCHW = pad(rows.images_NCHW, (0, 0) * 3 + (0, EVALUATION_BATCH - len(rows)))
        logits_NK = model(normalize(images_NCHW))[: len(rows)].double()
        labels_N = rows.labels_N
        probabilities, predictions = logits_NK.softmax(1).max(1)
        top5_NK = logits_NK.topk(min(5, logits_NK.shape[1]), dim=1).indices
        top5_hits = (top5_NK == labels_N[:, None]).any(1)
        losses = cross_entropy(logits_NK, labels_N, reduction="none")
        batch = (rows.row_ids_N, labels_N, predictions, probabilities, top5_hits, losses)
        columns.append(tuple(column.cpu().numpy() for column in batch))
    model.train(was_training)
    if not columns:
        columns = [(np.empty(0),) * 6]
    joined: list[NDArray[Any]] = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    return Predictions(*joined)


def validation_figures(mine: Predictions, device: torch.device) -> dict[str, float]:
    """An epoch's validation figures over the rows of all ranks."""
    own = [mine.losses.sum(), mine.correct, mine.top5_hits.sum(), mine.rows]
    sums = torch.tensor([float(value) for value in own], dtype=torch.float64, device=device)
    loss, correct, top5, rows = sum_over_ranks(sums).tolist()
    return {
        "validation.loss": loss / rows,
        "validation.top1": correct / rows,
        "validation.top5": top5 / rows,
    }
