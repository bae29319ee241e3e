"""TensorBoard's event files of a run or a trial: its curves, its graph, what its network holds.

The curves are written from the session's records, which a resumed session brings along, so that
they begin at the first epoch in every attempt's folder and no epoch stands in them twice. What an
epoch's histograms show lies in a file of its own, named after the epoch, for the same reason.
"""

import io
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from cifarray.metrics import EPOCH
from cifarray.store import Store
from cifarray.store.layout import CURVES_FILE, EVENTS, GRAPH_FILE, HISTOGRAMS_FILE
from cifarray.training.checkpoint import kept_rng
from cifarray.training.histograms import look_inside
from cifarray.training.trainer import Trainer

CURVES = {field.tensorboard: name for name, field in EPOCH.items() if field.tensorboard}
"""Scalar in TensorBoard -> field of an epoch's record; epochs are the steps."""


class Board:
    """Keeps the event files below a folder of the store up to date; rank 0 alone shows anything."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._prefix = store, f"{folder}/{EVENTS}"
        self._curves = b""
        self._shown = self._stored = 0
        self._tried_graph = self._has_failed = False
        self._looked_at = 0

    def show(self, session: Trainer) -> None:
        """Write what the session's last epoch adds; what fails is said once and ends no run."""
        try:
            self._show_curves(session.history)
            with kept_rng():
                self._show_graph(session)
                self._show_insides(session)
        except Exception as error:  # curves can be had again from the metrics, a training cannot
            if not self._has_failed:
                print(f"warning: TensorBoard lacks something: {_reason(error)}", flush=True)
            self._has_failed = True

    def _show_curves(self, history: Sequence[Mapping[str, Any]]) -> None:
        if not self._curves:
            begun = _moment(history[0]) - history[0]["epoch_s"]
            self._curves = _as_bytes(Event(wall_time=begun, file_version="brain.Event:2"))
        for record in history[self._shown :]:
            self._curves += _as_bytes(_scalars(record))
        self._shown = len(history)
        self._store.extend(f"{self._prefix}/{CURVES_FILE}", self._curves, self._stored)
        self._stored = len(self._curves)

    def _show_graph(self, session: Trainer) -> None:
        """Once in a folder: tracing a large network takes seconds."""
        if self._tried_graph:
            return
        self._tried_graph = True  # what could not be traced once cannot be later
        key = f"{self._prefix}/{GRAPH_FILE}"
        if self._store.exists(key):
            return
        network, images_NCHW, _ = session.probe()
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # of tracing: the trace is only drawn
                content = _recorded(lambda writer: writer.add_graph(network, images_NCHW[:1]))
        except Exception as error:  # a network of the user's own may do what no trace can follow
            print(f"TensorBoard has no graph of the network: {_reason(error)}", flush=True)
            return
        self._store.write(key, content)

    def _show_insides(self, session: Trainer) -> None:
        """Every so many epochs, if the job asks for it."""
        spec, epoch = session.job.train.histograms, session.history[-1]["epoch"]
        if spec is None or epoch % spec.every_epochs or epoch == self._looked_at:
            return
        self._looked_at = epoch
        seen, moment = look_inside(session.probe()), _moment(session.history[-1])

        def write(writer: SummaryWriter) -> None:
            for tag, counted in seen.histograms.items():
                writer.add_histogram_raw(tag, *counted, global_step=epoch, walltime=moment)
            for tag, share in seen.sparsity.items():
                writer.add_scalar(tag, share, epoch, moment)

        self._store.write(f"{self._prefix}/{HISTOGRAMS_FILE}.{epoch:06d}", _recorded(write))


def carry_histograms(store: Store, earlier: str, folder: str, last_epoch: int) -> None:
    """Copy those of the epochs up to this one; a board makes the other files anew."""
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
    return Event(wall_time=_moment(record), step=record["epoch"], summary=Summary(value=values))


def _moment(record: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(record["ended_at"]).timestamp()


def _as_bytes(event: Event) -> bytes:
    """The event as it stands in a file, with its length and checksums."""
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def _recorded(write: Callable[[SummaryWriter], None]) -> bytes:
    """The event file that torch's writer makes of this."""
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            write(writer)
        (path,) = Path(folder).iterdir()
        return path.read_bytes()
