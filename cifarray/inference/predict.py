"""Classes of image files, most probable first, and how each file was changed for the network.

Shapes: N images, H height, W width, C channels, K classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cifarray.data.decode import (
    FORMATS_IN_WORDS,
    read_image_file,
    resized,
    upright_image,
    with_channels,
)
from cifarray.errors import InputError
from cifarray.training.checkpoint import Checkpoint

BATCH = 256
TOP = 5


@dataclass(frozen=True)
class ReadImage:
    """An image file's pixels."""

    path: str
    pixels_HWC: NDArray[np.uint8]
    changes: tuple[str, ...]
    """What was done to the file's pixels, in order."""


def read_image(path: str, shape: tuple[int, int, int]) -> ReadImage:
    """Read an image and fit it to (height, width, channels). Raises: InputError."""
    changes: list[str] = []
    try:
        image = upright_image(read_image_file(Path(path)), changes)
        return _fit(path, image, shape, changes)
    except FileNotFoundError as error:
        raise InputError(f"no image at {path}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; give the image files in it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read as an image ({reason}); give a file of {FORMATS_IN_WORDS}"
        ) from error


def _fit(
    path: str, image: Image.Image, shape: tuple[int, int, int], changes: list[str]
) -> ReadImage:
    height, width, channels = shape
    colored = with_channels(image, channels, changes)
    if colored.size != (width, height):
        old = f"{colored.width}x{colored.height}"
        same_shape = colored.width * height == colored.height * width
        note = "" if same_shape else ", which changes its aspect ratio"
        changes.append(f"resized from {old} to {width}x{height}{note}")
        colored = resized(colored, height, width)
    pixels = np.asarray(colored, dtype=np.uint8).reshape(height, width, channels)
    return ReadImage(path, pixels, tuple(changes))


@dataclass(frozen=True)
class ClassProbability:
    """A class and how probable the network finds it."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the network says about one image file."""

    image: str
    changes: tuple[str, ...]
    """What was done to the file's pixels before the network saw them."""
    top5: tuple[ClassProbability, ...]
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
            tuple(
                ClassProbability(checkpoint.classes[k], p)
                for p, k in zip(values, indices, strict=True)
            ),
            image.pixels_HWC,
        )
        for image, values, indices in rows
    ]
