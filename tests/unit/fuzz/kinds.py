"""Every kind of input: how one is made of good samples, and which entry point gets it."""

import base64
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from cifarray.backends.submit import plan
from cifarray.cli.main import main
from cifarray.data.ingest import Ingest, prepare
from cifarray.digests import content_sha256
from cifarray.models.pretrained import read_weights
from cifarray.models.user_code import pack_code, unpack_code
from cifarray.models.user_network import check_factory
from cifarray.runs import Run, write_index
from cifarray.spec.load import load_job, load_profile, profile_names, to_yaml
from cifarray.store import Store
from cifarray.training.checkpoint import load_checkpoint, read_state, write_checkpoint
from tests import archives, image_archives
from tests.unit.fuzz.mutation import ODD_BYTES, Mutator
from tests.unit.fuzz.samples import (
    CHECKPOINT,
    NETWORK,
    RUN_ID,
    Planted,
    Samples,
    dataset_folder,
    planted_code,
    planted_pickle,
    planted_yaml,
    zipped,
)
from tests.unit.inference.conftest import JOB, open_session

OTHER_ID = "digits-test-261123-050000-1a2b"

Action = Callable[[], object]
Maker = Callable[[Samples, Mutator, Path, Path], Action]
"""Of samples, changes, an empty folder and the marker: what to try."""


def _type(*words: object) -> Action:
    return lambda: main([str(word) for word in words])


def _changed_yaml(mutator: Mutator, text: str, marker: Path) -> bytes:
    """A YAML file with other values, other bytes, or a planted tag."""
    way = mutator.draw.random()
    if way < 0.45:
        value = mutator.value(yaml.safe_load(text))
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    if way < 0.55:
        return text.replace("digits", planted_yaml(marker), 1).encode()
    return mutator.data(text.encode())


def _changed_json(mutator: Mutator, content: bytes) -> bytes:
    if mutator.draw.random() < 0.5:
        return mutator.data(content)
    return json.dumps(mutator.value(json.loads(content))).encode("utf-8", "surrogatepass")


def _rewrite(path: Path, content: bytes) -> None:
    """Another file in the place of one that may be linked with a sample."""
    path.unlink()
    path.write_bytes(content)


def job(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    name = mutator.draw.choice(("train-digits", "tune-digits"))
    path = folder / "job.yaml"
    path.write_bytes(_changed_yaml(mutator, to_yaml(load_job(name)), marker))
    return _type("run", path, "--dry-run", "--store", samples.store.uri)


def profile(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    given = load_profile(mutator.draw.choice(profile_names()))
    path = folder / "profile.yaml"
    path.write_bytes(_changed_yaml(mutator, to_yaml(given), marker))
    return lambda: plan(load_job("train-digits"), load_profile(str(path)))


def overrides(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    """What follows --set: a field and a value, each of them sound or not."""
    fields = [
        *("train.epochs", "optimizer.lr", "model.name", "model.args", "dataset.classes", "seed"),
        *("sweep.space", "sweep.space.optimizer.lr", "augment.padded_crop", "preprocess.resize"),
        *("validation.fraction", "schedule.name", "name", "train", "model.dropouts", "dataset"),
    ]
    items = []
    for _ in range(mutator.draw.choice((1, 1, 3))):
        field = mutator.draw.choice(fields)
        field = mutator.text(field) if mutator.draw.random() < 0.2 else field
        value = mutator.draw.choice(
            (
                mutator.text("{min: 0.1, max: 1.0, scale: log}"),
                yaml.safe_dump(mutator.odd(3), default_flow_style=True),
                mutator.draw.choice(ODD_BYTES).decode("utf-8", "replace"),
                planted_yaml(marker),
            )
        )
        items += ["--set", f"{field}={value}".replace("\0", "0")]
    name = mutator.draw.choice(("train-digits", "tune-digits"))
    return _type("run", name, "--dry-run", "--store", samples.store.uri, *items)


def _change_one(mutator: Mutator, files: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    """One of the files with other bytes, gone, under another name, or a planted pickle."""
    name = mutator.draw.choice(sorted(files))
    match mutator.draw.randrange(10):
        case 0:
            del files[name]
        case 1:
            files[name + mutator.draw.choice(("~", ".jpg", "/x", " "))] = files.pop(name)
        case 2:
            files[name] = planted_pickle(marker)
        case _:
            files[name] = mutator.data(files[name])
    return files


def cifar_archive(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    name = mutator.draw.choice(("cifar10", "cifar100"))
    path = folder / "archive.tar.gz"
    batch = "train" if name == "cifar100" else "data_batch_2"
    style: archives.Style = mutator.draw.choice(("python2", "numpy2"))
    write = archives.write_cifar100 if name == "cifar100" else archives.write_cifar10
    write(path, 1, 1, style=style)
    if mutator.draw.random() < 0.8:
        labels: dict[str, Any] = {"batch_label": "x", "labels": [0, 1]}
        labels |= {"fine_labels": [0, 1], "coarse_labels": [4, 1]} if name == "cifar100" else {}
        values = labels | {"data": np.zeros((2, 3072), np.uint8)}
        protocol = mutator.draw.choice((0, 2, 4))
        replaced = mutator.draw.choice(
            (
                planted_pickle(marker),
                archives.dump(values | mutator.value(labels), "numpy2", protocol),
                archives.dump(values | mutator.value(labels), "numpy2", protocol),
                archives.dump(mutator.value(values), "numpy2", protocol),
                mutator.data(archives.dump(values)),
                mutator.draw.choice(ODD_BYTES),
            )
        )
        write(path, 1, 1, style=style, **{batch: replaced})
    else:
        path.write_bytes(mutator.data(path.read_bytes()))
    return _prepare(folder, name, path)


def idx_archive(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    path = archives.write_fashion_mnist(folder / "given", 1, 1)
    changed = mutator.draw.choice(sorted(path.iterdir()))
    changed.write_bytes(mutator.data(changed.read_bytes()))
    return _prepare(folder, "fashion-mnist", path)


def image_archive(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    """A folder, tar or zip of image files, or CUB-200's lists."""
    birds = mutator.draw.random() < 0.4
    files = image_archives.bird_files(2) if birds else image_archives.folder_files(train=2, test=1)
    files = _change_one(mutator, files, marker)
    path = folder / "given"
    match mutator.draw.choice(("folder", "tar", "zip")):
        case "folder" if not birds:
            try:
                image_archives.write_folder(path, files)
            except OSError:  # of names that no folder holds
                return lambda: None
        case "zip" if not birds:
            path = image_archives.write_zip_of(folder / "given.zip", files)
        case _:
            path = image_archives.write_tar_of(folder / "given.tar.gz", files)
    if path.is_file() and mutator.draw.random() < 0.3:
        path.write_bytes(mutator.data(path.read_bytes()))
    if birds:
        return _prepare(folder, "cub200", path)
    skip_bad = mutator.draw.random() < 0.5
    return _prepare(folder, "mine", path, Ingest("imagefolder", skip_bad=skip_bad))


def hub_shards(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    """Parquet of the Hub's layout, whose metadata may hold a planted pickle."""
    tables = image_archives.hub_tables(rows=2)
    name = mutator.draw.choice(sorted(tables))
    table = tables[name]
    about = json.loads((table.schema.metadata or {})[b"huggingface"])
    planted = base64.b64encode(planted_pickle(marker))
    metadata = {
        b"huggingface": json.dumps(mutator.value(about)).encode("utf-8", "surrogatepass"),
        b"pandas": planted,
        b"PANDAS_ATTRS": planted_pickle(marker),
    }
    if mutator.draw.random() < 0.1:
        metadata[b"ARROW:schema"] = planted
    tables[name] = table.replace_schema_metadata(metadata)
    path = image_archives.write_folder(folder / "given", tables)
    if mutator.draw.random() < 0.5:
        changed = path / name
        changed.write_bytes(mutator.data(changed.read_bytes()))
    return _prepare(folder, "mine", path, Ingest("huggingface"))


def _prepare(folder: Path, name: str, path: Path, how: Ingest | None = None) -> Action:
    store = Store.open(str(folder / "store"))
    return lambda: prepare(store, name, str(path), how=how)


def parquet(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    """A dataset's own files, changed in the store."""
    store = samples.copy(folder / "store")
    path = mutator.draw.choice(sorted(dataset_folder(samples, store).rglob("*.parquet")))
    if mutator.draw.random() < 0.3:
        table = pq.read_table(path)
        planted = {b"ARROW:extension:metadata": planted_pickle(marker), b"pandas": b"{"}
        column = mutator.draw.choice(table.column_names)
        place = table.column_names.index(column)
        other = mutator.draw.choice(
            (
                pa.nulls(len(table), table[column].type),
                pa.array([999] * len(table), pa.int16()),
                pa.array([-1] * len(table), pa.int64()),
                pa.array([b"x" * mutator.draw.choice((1, 64, 65))] * len(table)),
                pa.array(["x"] * len(table)),
            )
        )
        table = mutator.draw.choice(
            (
                table.drop_columns([column]),
                table.slice(0, 3),
                table.append_column(column, table[column]),
                *[table.set_column(place, column, other)] * 5,
            )
        )
        path.unlink()
        pq.write_table(table.replace_schema_metadata(planted), path)
    else:
        _rewrite(path, mutator.data(path.read_bytes()))
    return _on_dataset(samples, mutator, store)


def manifest(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    store = samples.copy(folder / "store")
    dataset = dataset_folder(samples, store)
    path = mutator.draw.choice((dataset / "manifest.json", dataset.parent / "LATEST"))
    content = path.read_bytes()
    is_json = path.suffix == ".json"
    _rewrite(path, _changed_json(mutator, content) if is_json else mutator.data(content))
    return _on_dataset(samples, mutator, store)


def _on_dataset(samples: Samples, mutator: Mutator, store: Store) -> Action:
    command = mutator.draw.choice(
        (
            ("data", "inspect", "digits", "--json"),
            ("data", "verify", "digits"),
            ("datasets", "--json"),
            ("evaluate", samples.checkpoint),
            ("run", "train-digits", "--dry-run"),
        )
    )
    return _type(*command, "--store", store.uri)


def checkpoint(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    """A state of other values with the right checksums, or files with other bytes."""
    state = {key: value for key, value in samples.state.items() if key != "schema_version"}
    way = mutator.draw.random()
    if way < 0.7:
        key = mutator.draw.choice(sorted(state))
        state[key] = mutator.odd(state[key]) if way < 0.2 else mutator.value(state[key])
    elif way < 0.75:
        state[mutator.draw.choice(sorted(state))] = Planted(marker)
    path = folder / "checkpoint"
    write_checkpoint(path, state, {"epoch": 2, "step": 2})
    if 0.75 <= way < 0.87:
        _change_pickle(mutator, path / "state.pt")
        _sign(path)
    elif way >= 0.87:
        changed = path / mutator.draw.choice(("state.pt", "checkpoint.json"))
        content = mutator.data(changed.read_bytes())
        changed.write_bytes(content)
        if changed.name == "state.pt":
            _sign(path)
    return _on_checkpoint(samples, mutator, path, folder)


def _change_pickle(mutator: Mutator, path: Path) -> None:
    """Other bytes in the pickle of a file of torch.save's, whose zip stays sound."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changed = {
        name: mutator.data(content) if name.endswith("data.pkl") else content
        for name, content in members.items()
    }
    path.write_bytes(zipped(changed))


def _sign(path: Path) -> None:
    """Let checkpoint.json prove what state.pt holds now."""
    from cifarray.digests import file_sha256

    proof = json.loads((path / "checkpoint.json").read_bytes())
    state = path / "state.pt"
    fingerprint = {"size_bytes": state.stat().st_size, "sha256": file_sha256(state)}
    proof["files"]["state.pt"] = fingerprint
    (path / "checkpoint.json").write_text(json.dumps(proof))


def _on_checkpoint(samples: Samples, mutator: Mutator, path: Path, folder: Path) -> Action:
    image = folder / "image.png"
    image.write_bytes(samples.images["PNG"])
    output = folder / "exported.safetensors"

    def resume() -> None:
        open_session(samples.store, samples.manifest, JOB).restore(read_state(path))

    actions: list[Action] = [
        _type("predict", path, image, "--json"),
        _type("export", path, "--format", "safetensors", "--output", output),
        _type("evaluate", path, "--store", samples.store.uri, "--json"),
        lambda: load_checkpoint(path),
        lambda: read_weights(path / "state.pt", "mine"),
        resume,
    ]
    return mutator.draw.choice(actions)


def weights(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    """A file for model.weights, as torch.save and safetensors write it."""
    from safetensors.torch import save_file

    path = folder / "weights"
    tensors = {key: tensor.clone().contiguous() for key, tensor in samples.state["model"].items()}
    if mutator.draw.random() < 0.5:
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
        if mutator.draw.random() < 0.7:
            _change_pickle(mutator, path)
            return lambda: read_weights(path, "mine")
    path.write_bytes(mutator.data(path.read_bytes()))
    return lambda: read_weights(path, "mine")


def record(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    """One file of a run, changed in the store, under each command that reads it."""
    store = samples.copy(folder / "store")
    run = Path(store.path(f"runs/{RUN_ID}"))
    shutil.copytree(run, run.with_name(OTHER_ID), copy_function=os.link)
    names = [
        *("status.json", "status.json", "job.yaml", "job.yaml", "lease.json", "best.json"),
        *("attempts/1/metrics.jsonl", "attempts/1/files.json", "report/files.json"),
        *("report/report.json", "report/report.json", "report/report.json"),
        *(f"{CHECKPOINT}/checkpoint.json", "attempts/1/driver.log"),
    ]
    path = run / mutator.draw.choice([name for name in names if (run / name).exists()])
    content = path.read_bytes()
    if path.suffix == ".yaml":
        content = _changed_yaml(mutator, content.decode(), marker)
    elif path.suffix == ".json":
        content = _changed_json(mutator, content)
    else:
        content = mutator.data(content)
    _rewrite(path, content)
    if path.parent.name == "report" and path.name != "files.json":
        write_index(store, f"runs/{RUN_ID}/report")
    command = mutator.draw.choice(
        (
            *(("runs",), ("runs", "--json"), ("status", RUN_ID), ("status", RUN_ID, "--json")),
            *(("report", RUN_ID), ("report", RUN_ID, "--json"), ("compare", RUN_ID, OTHER_ID)),
            *(
                ("pull", RUN_ID, folder / "pulled"),
                ("logs", RUN_ID),
                ("compare", RUN_ID, OTHER_ID, "--json"),
            ),
            *(("evaluate", RUN_ID), ("export", RUN_ID, "--output", folder / "x.onnx2")),
            *(("delete", RUN_ID, "--yes"), ("prune", "--older-than", "1d", "--dry-run")),
        )
    )
    if mutator.draw.random() < 0.1:
        return lambda: Run.open(store, RUN_ID).spec()
    return _type(*command, "--store", store.uri)


def image(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    content = samples.images[mutator.draw.choice(sorted(samples.images))]
    path = folder / "image.bin"
    if mutator.draw.random() < 0.2:
        path.write_bytes(_of_another_size(mutator, samples.images["PNG"]))
    else:
        path.write_bytes(mutator.data(content))
    return _type("predict", samples.checkpoint, path, "--json")


def _of_another_size(mutator: Mutator, png: bytes) -> bytes:
    """A PNG whose header claims another size, with the right checksum."""
    sides = (0, 1, 5000, 6000, 13_300, 60_000, 2**31 - 1)
    header = struct.pack(">II", mutator.draw.choice(sides), mutator.draw.choice(sides)) + png[24:29]
    return png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]


def code(samples: Samples, mutator: Mutator, folder: Path, marker: Path) -> Action:
    """A folder of Python files, which are looked at, packed and unpacked, and not run."""
    path = folder / "code"
    path.mkdir()
    draw = mutator.draw
    brackets = "(" * draw.choice((50, 300, 9000)) + "1" + "+1" * draw.choice((0, 9000))
    text = draw.choice(
        (
            mutator.data(NETWORK.encode()),
            mutator.data((planted_code(marker) + NETWORK).encode()),
            f"net = {brackets}".encode(),
            f"net = {'-' * draw.choice((100, 99_999))}1".encode(),
            f"net = a{'.b' * draw.choice((100, 99_999))}".encode(),
            ("class A:\n" + "".join(f"{' ' * n}if 1:\n" for n in range(1, 300))).encode(),
        )
    )
    (path / "fuzzed_net.py").write_bytes(text)
    (path / "setup.py").write_text(planted_code(marker))
    other = draw.choice(("../x.py", "x.py", "fuzzed_net.py/x"))
    packed = zipped({"fuzzed_net.py": text, other: planted_code(marker).encode()})
    packed = mutator.data(packed)
    actions: list[Action] = [
        lambda: check_factory("fuzzed_net:net", path),
        lambda: pack_code(path),
        lambda: unpack_code(packed, content_sha256(packed), folder / "unpacked"),
    ]
    return draw.choice(actions)


KINDS: dict[str, Maker] = {
    "job": job,
    "profile": profile,
    "overrides": overrides,
    "cifar archive": cifar_archive,
    "idx archive": idx_archive,
    "image archive": image_archive,
    "Hub shards": hub_shards,
    "Parquet": parquet,
    "manifest": manifest,
    "checkpoint": checkpoint,
    "weights": weights,
    "record": record,
    "record again": record,
    "image": image,
    "code": code,
}
"""Tried in turn: the number of an input says which kind it is of."""
