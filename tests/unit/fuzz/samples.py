"""Good samples of everything that cifarray reads, made by what the other tests make theirs with."""

import io
import os
import pickle
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cifarray.data.decode import FORMATS
from cifarray.data.ingest import prepare
from cifarray.data.manifest import Manifest
from cifarray.data.split import select_rows
from cifarray.report.build import write_report
from cifarray.runs import Run, write_index
from cifarray.runs.metrics_log import write_metrics
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix
from cifarray.training.checkpoint import read_state, write_checkpoint
from tests.image_archives import encoded, picture
from tests.report_samples import inputs
from tests.unit.inference.conftest import JOB, open_session

CHECKPOINT = "attempts/1/checkpoints/digits-test-1/epoch_000002_ab12"
RUN_ID = "digits-test-261123-040000-1a2b"
NETWORK = """from torch import nn
def net(num_classes, in_channels, image_size, dropout=0.0):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_size[0] * image_size[1], num_classes))
"""


@dataclass(frozen=True)
class Samples:
    """Where the samples lie."""

    folder: Path
    store: Store
    """Holds digits and a finished run with a checkpoint and a report."""
    manifest: Manifest
    state: dict[str, Any]
    """Of the checkpoint."""
    images: dict[str, bytes]

    @property
    def checkpoint(self) -> Path:
        """The folder of the run's checkpoint."""
        return Path(self.store.path(f"runs/{RUN_ID}/{CHECKPOINT}"))

    def copy(self, folder: Path) -> Store:
        """The store again, without its bytes: what is changed there has to be written again."""
        shutil.copytree(self.store.path(""), folder, copy_function=os.link)
        return Store.open(str(folder))


def make_samples(folder: Path) -> Samples:
    """Train two epochs of a small network on digits, and write the run that this makes."""
    torch.set_num_threads(1)
    store = Store.open(str(folder / "store"))
    manifest, _ = prepare(store, "digits")
    session = open_session(store, manifest, JOB)
    *_, record = session.records()
    spec = RunSpec(
        run_id=RUN_ID,
        job=JOB,
        profile=Profile(name="local", kind="local"),
        world_size=1,
        dataset_digest=manifest.digest,
        validation_rows=len(select_rows(store, manifest, JOB).validation_row_ids),
        validation_sha256=session.state()["validation_sha256"],
        submitted_at="2026-11-23T04:00:00+00:00",
        versions={},
    )
    run = Run.create(store, spec)
    attempt = run.start_attempt("a driver")
    write_checkpoint(Path(store.path(run.key(CHECKPOINT))), session.state(), record)
    write_metrics(store, attempt.prefix, session.history)
    store.write(f"{attempt.prefix}/driver.log", b"epoch 1\nepoch 2\n")
    store.write_json(run.key("best.json"), {"checkpoint": CHECKPOINT, "epoch": 2, "trial_id": None})
    write_report(Path(store.path(run.key("report"))), inputs(spec=spec))
    write_index(store, run.key("report"))
    attempt.heartbeat(best={"metric": "validation.top1", "value": 0.9, "epoch": 2})
    attempt.close("finished")
    images = {form: encoded(picture(3, 0, (24, 32)), form) for form in FORMATS}
    images["GIF of frames"] = encoded(
        picture(1, 0), "GIF", save_all=True, append_images=[picture(2, 0)]
    )
    images["PNG of a palette"] = encoded(picture(1, 0).convert("P"), transparency=0)
    images["TIFF, packed"] = encoded(picture(1, 0), "TIFF", compression="tiff_lzw")
    images["JPEG, progressive"] = encoded(picture(1, 0), "JPEG", progressive=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    images["JPEG, turned"] = encoded(picture(1, 0), "JPEG", exif=turned)
    state = read_state(Path(store.path(run.key(CHECKPOINT))))
    return Samples(folder, store, manifest, state, images)


def dataset_folder(samples: Samples, store: Store) -> Path:
    """Where the digits lie in a copy of the store."""
    return Path(store.path(dataset_prefix(samples.manifest.name, samples.manifest.digest)))


class Planted:
    """Unpickling this writes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def planted_pickle(marker: Path) -> bytes:
    """A pickle that runs code."""
    return pickle.dumps(Planted(marker))


def planted_code(marker: Path) -> str:
    """A line of Python that does, where it is run."""
    return f"open({str(marker)!r}, 'w').close()\n"


def planted_yaml(marker: Path) -> str:
    """A YAML value that does, in a loader that builds Python's objects."""
    return f"!!python/object/apply:os.mkdir [{str(marker)!r}]"


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()
