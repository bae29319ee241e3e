"""Classes of image files, most probable first.

Shapes: N images, H height, W width, C channels, K classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cifarray.inference.images import ReadImage, read_image
from cifarray.training.checkpoint import Checkpoint

BATCH = 256
TOP = 5


@dataclass(frozen=True)
class Guess:
    """A class and how probable the network finds it."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the network says about one image file."""

    image: str
    changes: tuple[str, ...]
    """What was done to the file's pixels before the network saw them."""
    top5: tuple[Guess, ...]
    pixels_HWC: NDArray[np.uint8] = field(repr=False, compare=False)
    """The image as the network takes it, before it is scaled."""

    def to_json(self) -> dict[str, Any]:
        """A plain record, with the most probable class on its top level."""
        best = self.top5[0]
        return {"image": self.image, **asdict(best)} | {
            "top5": [asdict(guess) for guess in self.top5],
            "changes": list(self.changes),
        }


def predict(checkpoint: Checkpoint, paths: Sequence[str]) -> list[Prediction]:
    """Classify image files. Raises: InputError for one that cannot be read, before any is."""
    images = [read_image(path, checkpoint.input_shape) for path in paths]
    predictions: list[Prediction] = []
    for first in range(0, len(images), BATCH):
        predictions += _predict_batch(checkpoint, images[first : first + BATCH])
    return predictions


@torch.no_grad()
def _predict_batch(checkpoint: Checkpoint, images: Sequence[ReadImage]) -> list[Prediction]:
    images_NHWC = torch.from_numpy(np.stack([image.pixels_HWC for image in images]))
    images_NCHW = images_NHWC.permute(0, 3, 1, 2).contiguous()
    logits_NK = checkpoint.model(checkpoint.preprocess(images_NCHW)).double()
    best = logits_NK.softmax(1).topk(min(TOP, len(checkpoint.classes)), dim=1)
    rows = zip(images, best.values.tolist(), best.indices.tolist(), strict=True)
    return [
        Prediction(
            image.path,
            image.changes,
            tuple(Guess(checkpoint.classes[k], p) for p, k in zip(values, indices, strict=True)),
            image.pixels_HWC,
        )
        for image, values, indices in rows
    ]
