"""TensorBoard's event files of a run or a trial: its curves, its graph, what its network holds.

The curves are written from the trainer's records, which a resumed trainer brings along, so that
they start at the first epoch in every attempt's folder and no epoch is in them twice. The
histograms of an epoch are in a file of their own, named after the epoch, for the same reason.

Histograms come from a copy of the network, in eval mode, and the same few images every time:
training is not affected, and what differs between two epochs is the network alone.
Shapes: N images, C channels, H and W their height and width, K classes.
"""

import io
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.tensorboard import SummaryWriter

from cifarray.metrics import EPOCH
from cifarray.store import Store
from cifarray.store.layout import CURVES_FILE, EVENTS, GRAPH_FILE, HISTOGRAMS_FILE
from cifarray.training.checkpoint import kept_rng
from cifarray.training.trainer import Trainer

CURVES = {field.tensorboard: name for name, field in EPOCH.items() if field.tensorboard}
"""Scalar in TensorBoard -> field of an epoch's record; epochs are the steps."""
PROBED_IMAGES = 64
BINS = 64
MOST_COUNTED_IN_FLOATS = 1 << 24
"""torch counts in the type of the values, and 32-bit floats do not count any further."""
RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold)
"""Layers that make zeros on purpose; their share is the sparsity of what follows."""


class Board:
    """Keeps the event files below a folder of the store up to date; rank 0 alone shows anything."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._prefix = store, f"{folder}/{EVENTS}"
        self._curves = b""
        self._shown = self._stored = 0
        self._tried_graph = self._has_failed = False
        self._histograms_of = 0

    def show(self, trainer: Trainer) -> None:
        """Write what the last epoch adds; a failure is reported once and ends no run."""
        try:
            self._show_curves(trainer.history)
            with kept_rng():
                self._show_graph(trainer)
                self._show_histograms(trainer)
        except Exception as error:  # curves can be rebuilt from the metrics, a training cannot
            if not self._has_failed:
                print(f"warning: TensorBoard's files are incomplete: {_reason(error)}", flush=True)
            self._has_failed = True

    def _show_curves(self, history: Sequence[Mapping[str, Any]]) -> None:
        if not self._curves:
            started = _end_time(history[0]) - history[0]["epoch_s"]
            self._curves = _as_bytes(Event(wall_time=started, file_version="brain.Event:2"))
        for record in history[self._shown :]:
            self._curves += _as_bytes(_scalars(record))
        self._shown = len(history)
        self._store.extend(f"{self._prefix}/{CURVES_FILE}", self._curves, self._stored)
        self._stored = len(self._curves)

    def _show_graph(self, trainer: Trainer) -> None:
        """Once per folder: tracing a large network takes seconds."""
        if self._tried_graph:
            return
        self._tried_graph = True  # what could not be traced once cannot be traced later
        key = f"{self._prefix}/{GRAPH_FILE}"
        if self._store.exists(key):
            return
        network, images_NCHW, _ = Probe.of(trainer)
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # of tracing: the trace is only drawn
                content = _recorded(lambda writer: writer.add_graph(network, images_NCHW[:1]))
        except Exception as error:  # a user-defined network may do what no trace can follow
            print(f"TensorBoard has no graph of the network: {_reason(error)}", flush=True)
            return
        self._store.write(key, content)

    def _show_histograms(self, trainer: Trainer) -> None:
        """Every so many epochs, if the job asks for it."""
        spec, epoch = trainer.job.train.histograms, trainer.history[-1]["epoch"]
        if spec is None or epoch % spec.every_epochs or epoch == self._histograms_of:
            return
        self._histograms_of = epoch
        seen, ended = look_inside(Probe.of(trainer)), _end_time(trainer.history[-1])

        def write(writer: SummaryWriter) -> None:
            for tag, counted in seen.histograms.items():
                writer.add_histogram_raw(tag, *counted, global_step=epoch, walltime=ended)
            for tag, share in seen.sparsity.items():
                writer.add_scalar(tag, share, epoch, ended)

        self._store.write(f"{self._prefix}/{HISTOGRAMS_FILE}.{epoch:06d}", _recorded(write))


def carry_histograms(store: Store, earlier: str, folder: str, last_epoch: int) -> None:
    """Copy the histograms up to this epoch; a board makes the other files again."""
    for entry in store.list(f"{earlier}/{EVENTS}"):
        file = entry.key.rpartition("/")[2]
        name, _, epoch = file.rpartition(".")
        if name == HISTOGRAMS_FILE and epoch.isdecimal() and int(epoch) <= last_epoch:
            store.write(f"{folder}/{EVENTS}/{file}", store.read(entry.key))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _scalars(record: Mapping[str, Any]) -> Event:
    """An epoch's event, at the time of its end."""
    values = [
        Summary.Value(tag=tag, simple_value=record[name])
        for tag, name in CURVES.items()
        if record.get(name) is not None
    ]
    return Event(wall_time=_end_time(record), step=record["epoch"], summary=Summary(value=values))


def _end_time(record: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(record["ended_at"]).timestamp()


def _as_bytes(event: Event) -> bytes:
    """The event as a file holds it, with its length and checksums."""
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def _recorded(write: Callable[[SummaryWriter], None]) -> bytes:
    """The event file that torch's writer makes."""
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            write(writer)
        (path,) = Path(folder).iterdir()
        return path.read_bytes()


class Probe(NamedTuple):
    """What histograms and graph are made from."""

    network: nn.Module
    """A copy of the network that validation evaluates, in eval mode."""
    images_NCHW: Tensor
    """As the network sees them."""
    labels_N: Tensor

    @classmethod
    def of(cls, trainer: Trainer) -> "Probe":
        """A probe of the network as it is now, with the first rows of validation."""
        rows = next(trainer.shard("validation").in_order(PROBED_IMAGES))
        network = deepcopy(trainer.evaluated_network).eval()
        return cls(network, trainer.normalize(rows.images_NCHW), rows.labels_N)


class Histogram(NamedTuple):
    """How many values lie between limits; the fields are those of TensorBoard's writer."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]
    """Upper ends; a bucket starts where the one before it ends."""
    bucket_counts: list[float]


@dataclass(frozen=True)
class Histograms:
    """What was counted, by tag."""

    histograms: dict[str, Histogram] = field(default_factory=dict)
    sparsity: dict[str, float] = field(default_factory=dict)
    """Shares of zeros, 0 to 1."""

    def add(self, tag: str, values: Tensor) -> None:
        """Count a tensor's values; one without a finite value is left out."""
        if (counted := histogram(values)) is not None:
            self.histograms[tag] = counted


def look_inside(probe: Probe) -> Histograms:
    """Histograms of every weight, its gradient and every layer's output, and the shares of zeros.

    The gradients are those of the mean cross-entropy over the images. Layers are those that hold no
    others; one that a pass calls several times has a histogram per call.
    """
    seen = Histograms()
    _watch_layers(probe.network, seen)
    logits_NK = probe.network(probe.images_NCHW)
    named = dict(probe.network.named_parameters())
    learned = {name: weight for name, weight in named.items() if weight.requires_grad}
    loss = cross_entropy(logits_NK, probe.labels_N)
    gradients = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    for name, gradient in zip(learned, gradients, strict=True):
        if gradient is not None:
            seen.add(f"gradients/{name}", gradient)
    for name, weight in named.items():
        seen.add(f"weights/{name}", weight)
        seen.sparsity[f"sparsity_of_weights/{name}"] = _share_of_zeros(weight)
    return seen


def histogram(values: Tensor) -> Histogram | None:
    """Equal buckets from the least to the largest finite value; None without any."""
    exact = torch.float64 if values.numel() > MOST_COUNTED_IN_FLOATS else torch.float32
    flat = values.detach().flatten().to(exact)
    if len(flat) and not flat.sum().isfinite():
        flat = flat[flat.isfinite()]
    if not len(flat):
        return None
    low, high = (end.item() for end in flat.aminmax())
    pad = 0.0 if low < high else 1e-3 * max(abs(low), 1e-6)  # equal values need a bucket too
    edges = torch.linspace(low - pad, high + pad, BINS + 1, dtype=torch.float64).tolist()
    counts = torch.histc(flat, BINS, edges[0], edges[-1])
    return Histogram(
        min=low,
        max=high,
        num=len(flat),
        sum=flat.sum(dtype=torch.float64).item(),
        sum_squares=torch.linalg.vector_norm(flat, dtype=torch.float64).square().item(),
        bucket_limits=edges[1:],
        bucket_counts=counts.tolist(),
    )


def _watch_layers(network: nn.Module, seen: Histograms) -> None:
    """Count outputs as they pass: the next layer may write its own over them."""
    calls: Counter[str] = Counter()
    names = {layer: name for name, layer in network.named_modules() if not any(layer.children())}

    def watch(layer: nn.Module, _: object, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        calls[names[layer]] += 1
        call = calls[names[layer]]
        tag = names[layer] if call == 1 else f"{names[layer]}/call_{call}"
        seen.add(f"activations/{tag}", output)
        if isinstance(layer, RECTIFIERS):
            seen.sparsity[f"sparsity_of_activations/{tag}"] = _share_of_zeros(output)

    for layer in names:
        layer.register_forward_hook(watch)


def _share_of_zeros(values: Tensor) -> float:
    return 1.0 - values.count_nonzero().item() / max(1, values.numel())
