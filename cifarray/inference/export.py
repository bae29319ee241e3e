"""One file with network, preprocessing and class names inside, for use without cifarray.

ONNX and torch.export take raw pixels, `images` uint8 [batch, height, width, channels] as an image
reader gives them (RGB where there are three channels), and give `probabilities` float32
[batch, classes]; the batch may be of any size. safetensors holds the weights, those of whitening
too where the job asks for it, and in its header what is needed to use them.

Shapes: N images, H height, W width, C channels, K classes.
"""

import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import cifarray
from cifarray.errors import InputError, WorkError
from cifarray.spec.load import unknown_name
from cifarray.training.checkpoint import Checkpoint

TOLERANCE = 1e-4
"""Largest difference in a probability between torch and onnxruntime that an export may have."""


WHITENING = "preprocess.whitening."
"""Prefix of tensors in a safetensors file besides weights: the `mean` image and the `matrix`."""


class Predictor(nn.Module):
    """images_NHWC in uint8 -> probabilities_NK."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.preprocess = checkpoint.preprocess
        self.model = checkpoint.model

    def forward(self, images_NHWC: Tensor) -> Tensor:
        """Normalize, run the network, softmax."""
        logits_NK: Tensor = self.model(self.preprocess(images_NHWC.permute(0, 3, 1, 2)))
        return logits_NK.softmax(1)


def describe(checkpoint: Checkpoint) -> dict[str, str]:
    """The metadata of an exported file; every value is JSON."""
    values = {
        "cifarray_version": cifarray.__version__,
        "model": checkpoint.job.model.model_dump(mode="json"),
        "classes": checkpoint.classes,
        "coarse_classes": checkpoint.coarse_classes,
        "fine_to_coarse": checkpoint.fine_to_coarse,
        "input": {
            "shape": ["batch", *checkpoint.input_shape],
            "layout": "NHWC",
            "dtype": "uint8",
            "range": [0, 255],
        },
        "preprocess": {
            **checkpoint.job.preprocess.model_dump(mode="json", exclude_none=True),
            "mean": checkpoint.mean,
            "std": checkpoint.std,
        },
        "output": "probabilities",
        "dataset": checkpoint.dataset,
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
    }
    return {key: json.dumps(value) for key, value in values.items()}


def check_format(form: str) -> None:
    """Raise InputError for a format that is not in FORMATS."""
    if form not in FORMATS:
        raise InputError(unknown_name("format", form, FORMATS))


def default_output(checkpoint: Checkpoint, form: str) -> Path:
    """The job's name with the format's suffix, in the current folder."""
    return Path(re.sub(r"[^\w-]+", "-", checkpoint.job.name) + FORMATS[form].suffix)


def export(checkpoint: Checkpoint, form: str, output: Path, *, replace: bool = False) -> None:
    """Write `output` in one of FORMATS; it appears only when it is whole.

    Raises: InputError; WorkError for a network that the format cannot hold.
    """
    check_format(form)
    try:
        if output.is_dir() or (output.exists() and not replace):
            raise InputError(f"{output} already exists; give another --output or --force")
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
            part = Path(folder) / output.name
            FORMATS[form].write(checkpoint, part)
            os.replace(part, output)
    except OSError as error:
        raise InputError(
            f"cannot write {output}: {error.strerror or error}; give another --output"
        ) from error


def _to_onnx(checkpoint: Checkpoint, path: Path) -> None:
    predictor, images_NHWC, shapes = _traceable(checkpoint)
    with _exporting("onnx", checkpoint):
        program = torch.onnx.export(
            predictor,
            (images_NHWC,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=shapes,
        )
        assert program is not None  # it is what dynamo gives
        program.model.metadata_props.update(describe(checkpoint))
        program.save(path, external_data=False)
    _compare(predictor, path, images_NHWC)


def _compare(predictor: Predictor, path: Path, images_NHWC: Tensor) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"images": images_NHWC.numpy()})
    with torch.no_grad():
        ours = predictor(images_NHWC).numpy()
    difference = float(np.abs(np.asarray(theirs) - ours).max())
    if not difference <= TOLERANCE:
        raise WorkError(
            f"the ONNX file's probabilities differ from torch's by {difference:.2g}, more than "
            f"{TOLERANCE}; export with --format torch-export"
        )


def _to_torch_export(checkpoint: Checkpoint, path: Path) -> None:
    predictor, images_NHWC, shapes = _traceable(checkpoint)
    with _exporting("torch-export", checkpoint):
        program = torch.export.export(predictor, (images_NHWC,), dynamic_shapes=shapes)
        about = {"cifarray.json": json.dumps(describe(checkpoint))}
        torch.export.save(program, path, extra_files=about)


def _to_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: t.detach().contiguous() for name, t in checkpoint.model.state_dict().items()}
    whitening = checkpoint.preprocess.whitening or {}
    weights |= {f"{WHITENING}{name}": tensor for name, tensor in whitening.items()}
    save_file(weights, path, metadata=describe(checkpoint) | {"format": "pt"})


@dataclass(frozen=True)
class Format:
    """A kind of file that a network is exported to."""

    suffix: str
    write: Callable[[Checkpoint, Path], None]


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", _to_onnx),
    "torch-export": Format(".pt2", _to_torch_export),
    "safetensors": Format(".safetensors", _to_safetensors),
}


def _traceable(checkpoint: Checkpoint) -> tuple[Predictor, Tensor, tuple[dict[int, object]]]:
    """The predictor, two random images to trace it with, and the batch as a free dimension."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, *checkpoint.input_shape)
    images_NHWC = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Predictor(checkpoint).eval(), images_NHWC, ({0: torch.export.Dim("batch")},)


@contextmanager
def _exporting(form: str, checkpoint: Checkpoint) -> Iterator[None]:
    """Silence the exporters' notices, and turn errors of a network into one WorkError."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise WorkError(
            f"network {checkpoint.job.model.name} cannot be exported as {form}: "
            f"{reason[0][:300] if reason else type(error).__name__}; try --format safetensors"
        ) from error
