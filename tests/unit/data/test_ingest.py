"""Ingest: what an archive holds comes out of the store again, whole, once, the same each time."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifarray.data.catalog import CIFAR100, DATASETS, DatasetEntry
from cifarray.data.ingest import dataset_digest, prepare, stored_order
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.parquet import image_array, plan_files, read_columns
from cifarray.data.progress import Silent
from cifarray.data.readers.base import SplitArrays
from cifarray.data.readers.cifar import read_cifar
from cifarray.data.readers.digits import read_digits
from cifarray.data.readers.idx import read_idx
from cifarray.errors import DatasetError
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix, manifest_key
from tests.archives import write_cifar10, write_cifar100, write_fashion_mnist

REAL = {
    "cifar100": "cifar-100-python.subset.tar.gz",
    "cifar10": "cifar-10-python.subset.tar.gz",
    "fashion-mnist": "fashion-mnist.subset",
}
WRITERS: dict[str, Callable[[Path], Path]] = {
    "cifar100": write_cifar100,
    "cifar10": write_cifar10,
    "fashion-mnist": write_fashion_mnist,
}


def contents(store: Store) -> dict[str, bytes]:
    """Every object of a store."""
    return {entry.key: store.read(entry.key) for entry in store.list("")}


def assert_holds(store: Store, manifest: Manifest, splits: dict[str, SplitArrays]) -> None:
    """Each row of the arrays is in the store once, under its own row_id."""
    for split, arrays in splits.items():
        names = ["image", "label", "row_id"] + ["coarse_label"] * bool(manifest.coarse_classes)
        table = read_columns(store, manifest, split, names)
        row_ids = table["row_id"].to_numpy()
        assert sorted(row_ids) == list(range(arrays.rows))
        assert np.array_equal(image_array(table["image"], manifest.shape), arrays.images[row_ids])
        assert np.array_equal(table["label"].to_numpy(), arrays.labels[row_ids])
        if arrays.coarse_labels is not None:
            assert np.array_equal(table["coarse_label"].to_numpy(), arrays.coarse_labels[row_ids])


def arrays_of(entry: DatasetEntry, path: Path) -> dict[str, SplitArrays]:
    return read_idx(entry, path) if entry.layout == "idx" else read_cifar(entry, path)


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_of_an_archive_comes_out_of_the_store(
    name: str, store: Store, tmp_path: Path
) -> None:
    path = WRITERS[name](tmp_path / "archive")
    manifest, written = prepare(store, name, str(path))
    assert written
    assert load_manifest(store, name) == manifest
    assert not manifest.source.complete
    assert_holds(store, manifest, arrays_of(DATASETS[name], path))


@pytest.mark.parametrize("name", REAL)
def test_every_row_of_a_real_archive_comes_out_of_the_store(
    name: str, local_store: Store, test_data: Path
) -> None:
    manifest, _ = prepare(local_store, name, str(test_data / REAL[name]))
    assert_holds(local_store, manifest, arrays_of(DATASETS[name], test_data / REAL[name]))


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist"])
def test_mean_and_std_are_numpys(name: str, local_store: Store, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / "archive")
    manifest, _ = prepare(local_store, name, str(path))
    scaled = arrays_of(DATASETS[name], path)["train"].images / 255
    assert np.allclose(manifest.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    assert np.allclose(manifest.std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)


def test_digits_need_no_archive(store: Store) -> None:
    manifest, written = prepare(store, "digits")
    assert written
    assert manifest.source.complete
    assert_holds(store, manifest, read_digits(DATASETS["digits"]))
    assert prepare(store, "digits") == (manifest, False)


def test_a_second_call_finds_the_digest_and_writes_nothing(
    store: Store, cifar100_archive: Path
) -> None:
    manifest, _ = prepare(store, "cifar100", str(cifar100_archive))
    before = store.list("")
    assert prepare(store, "cifar100", str(cifar100_archive)) == (manifest, False)
    assert store.list("") == before


def test_the_digest_is_known_from_the_archive_alone(
    local_store: Store, cifar100_archive: Path
) -> None:
    manifest, _ = prepare(local_store, "cifar100", str(cifar100_archive))
    sha256 = hashlib.sha256(cifar100_archive.read_bytes()).hexdigest()
    assert manifest.source.sha256 == sha256
    assert manifest.digest == dataset_digest(sha256, DATASETS["cifar100"])
    assert dataset_digest(sha256, DATASETS["cifar10"]) != manifest.digest


def test_the_same_archive_gives_the_same_bytes(cifar100_archive: Path, tmp_path: Path) -> None:
    stores = [Store.open(str(tmp_path / name)) for name in ("one", "two")]
    for store in stores:
        prepare(store, "cifar100", str(cifar100_archive))
    one, two = (contents(store) for store in stores)
    assert one == two


def test_latest_names_what_was_prepared_last(local_store: Store, tmp_path: Path) -> None:
    small = str(write_cifar100(tmp_path / "small.tar.gz", 1, 1))
    large = str(write_cifar100(tmp_path / "large.tar.gz", 2, 1))
    first, _ = prepare(local_store, "cifar100", small)
    second, _ = prepare(local_store, "cifar100", large)
    assert load_manifest(local_store, "cifar100") == second
    assert prepare(local_store, "cifar100", small) == (first, False)
    assert load_manifest(local_store, "cifar100") == first
    assert load_manifest(local_store, "cifar100", second.digest) == second


def test_a_dataset_that_takes_anothers_place_says_so(
    local_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cifarray.cli.data import shown_progress

    manifests = []
    for rows in (1, 1, 2):
        archive = write_cifar100(tmp_path / f"{rows}.tar.gz", rows, 1)
        assert "in this store was" not in capsys.readouterr().err
        with shown_progress() as progress:
            manifests.append(prepare(local_store, "cifar100", str(archive), progress)[0])
    was, now = manifests[1].digest[:12], manifests[2].digest[:12]
    said = " ".join(capsys.readouterr().err.split())
    assert f"cifar100 in this store was {was}; new runs use {now}" in said


class Overtaken(Silent):
    """Has another archive prepared before the first row of its own is written."""

    def __init__(self, store: Store, archive: str) -> None:
        self.store, self.archive = store, archive
        self.others: list[Manifest] = []

    def start(self, description: str, total: int | None, unit: str) -> None:
        if description.startswith("writing"):
            self.others.append(prepare(self.store, "cifar100", self.archive)[0])


def test_a_prepare_that_was_overtaken_leaves_latest_alone_and_says_so(
    store: Store, tmp_path: Path
) -> None:
    small = str(write_cifar100(tmp_path / "small.tar.gz", 1, 1))
    large = str(write_cifar100(tmp_path / "large.tar.gz", 2, 1))
    for slow, fast in ((small, large), (large, small)):  # LATEST is absent, then there
        overtaken = Overtaken(store, fast)
        with pytest.raises(
            DatasetError, match=r"is in .* but not in use, because somebody prepared"
        ):
            prepare(store, "cifar100", slow, overtaken, again=True)
        assert [load_manifest(store, "cifar100")] == overtaken.others


def test_parts_without_a_manifest_are_no_dataset_and_are_written_anew(
    store: Store, cifar100_archive: Path, tmp_path: Path
) -> None:
    model = Store.open(str(tmp_path / "model"))
    whole, _ = prepare(model, "cifar100", str(cifar100_archive))
    store.write(f"{dataset_prefix('cifar100', whole.digest)}/train/part-00000.parquet", b"half")
    with pytest.raises(DatasetError, match="run `cifarray data prepare cifar100"):
        load_manifest(store, "cifar100")
    assert prepare(store, "cifar100", str(cifar100_archive)) == (whole, True)
    assert contents(store) == contents(model)


@pytest.mark.parametrize("damage", ["missing", "short", "manifest"])
def test_a_dataset_that_lost_something_is_written_anew(
    damage: str, local_store: Store, cifar100_archive: Path
) -> None:
    manifest, _ = prepare(local_store, "cifar100", str(cifar100_archive))
    whole = contents(local_store)
    part = f"{dataset_prefix('cifar100', manifest.digest)}/test/part-00000.parquet"
    if damage == "missing":
        local_store.delete([part])
    else:
        key = part if damage == "short" else manifest_key("cifar100", manifest.digest)
        local_store.write(key, local_store.read(key)[:-7])
    assert prepare(local_store, "cifar100", str(cifar100_archive)) == (manifest, True)
    assert contents(local_store) == whole


def test_again_writes_what_is_there(local_store: Store) -> None:
    manifest, _ = prepare(local_store, "digits")
    part = f"{dataset_prefix('digits', manifest.digest)}/test/part-00000.parquet"
    sound = local_store.read(part)
    local_store.write(part, bytes(len(sound)))
    assert prepare(local_store, "digits") == (manifest, False)
    assert prepare(local_store, "digits", again=True) == (manifest, True)
    assert local_store.read(part) == sound


def test_two_at_once_make_one_sound_dataset(cifar100_archive: Path, store: Store) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = list(
            pool.map(lambda _: prepare(store, "cifar100", str(cifar100_archive))[0], range(2))
        )
    assert made[0] == made[1]
    assert_holds(store, made[0], read_cifar(CIFAR100, cifar100_archive))
    for split in made[0].splits.values():
        for file in split.files:
            key = f"{dataset_prefix('cifar100', made[0].digest)}/{file.key}"
            assert hashlib.sha256(store.read(key)).hexdigest() == file.sha256


KILLED = """
import sys, time
from cifarray.data.ingest import prepare
from cifarray.store import Store

class Stops:
    def start(self, description, total, unit):
        pass
    def advance(self, amount):
        if amount == 200:  # train is written, test is not
            print("here", flush=True)
            time.sleep(60)

prepare(Store.open(sys.argv[1]), "cifar100", sys.argv[2], Stops())
"""


def test_a_killed_prepare_leaves_no_dataset_and_the_next_one_makes_it(
    local_store: Store, cifar100_archive: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, local_store.uri, str(cifar100_archive)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=Path.cwd(), env=_with_us()
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"here\n"
        os.kill(killed.pid, signal.SIGKILL)
    keys = [entry.key for entry in local_store.list("")]
    assert [key.rpartition("/")[2] for key in keys] == ["part-00000.parquet"]
    with pytest.raises(DatasetError):
        load_manifest(local_store, "cifar100")
    manifest, written = prepare(local_store, "cifar100", str(cifar100_archive))
    assert written
    assert_holds(local_store, manifest, read_cifar(CIFAR100, cifar100_archive))


def _with_us() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_rows_are_stored_in_one_fixed_random_order() -> None:
    order = stored_order("train", 1000)
    assert sorted(order) == list(range(1000))
    assert order[:8].tolist() == [232, 138, 881, 375, 719, 421, 331, 115]
    assert not np.array_equal(order, stored_order("test", 1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


def test_the_parquet_layout_is_the_documented_one(
    local_store: Store, cifar100_archive: Path
) -> None:
    manifest, _ = prepare(local_store, "cifar100", str(cifar100_archive))
    for split in ("train", "test"):
        key = f"{dataset_prefix('cifar100', manifest.digest)}/{split}/part-00000.parquet"
        parquet = pq.ParquetFile(local_store.path(key))
        assert parquet.num_row_groups == 16
        assert parquet.schema_arrow.names == ["image", "label", "coarse_label", "row_id"]
        image = parquet.schema_arrow.field("image")
        assert image.type == pa.binary(3072)
        assert image.metadata == {b"shape": b"[32, 32, 3]", b"layout": b"HWC", b"dtype": b"uint8"}
        assert parquet.schema_arrow.field("label").type == pa.int16()
        assert parquet.schema_arrow.field("row_id").type == pa.int64()
        assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(16)]
        assert list(manifest.splits[split].files[0].row_groups) == sizes
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("image_bytes", [64, 784, 3072, 150_528])
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 360, 1437, 50_000, 1_281_167])
def test_every_row_is_in_one_row_group_of_fitting_files(rows: int, image_bytes: int) -> None:
    plan = plan_files(rows, image_bytes)
    groups = [size for file in plan for size in file]
    assert sum(groups) == rows
    assert len(groups) >= min(rows, 16)
    assert max(groups) - min(groups) <= 1
    assert max(groups) * image_bytes <= (8 << 20) + image_bytes
    if rows * image_bytes > 128 << 20:
        assert all(32 << 20 <= sum(file) * image_bytes <= 128 << 20 for file in plan)


@pytest.mark.parametrize(("rows", "image_bytes"), [(100_000, 2_000), (5_994, 100_000), (20, 500)])
def test_row_groups_of_encoded_images_hold_few_enough_to_be_decoded_at_once(
    rows: int, image_bytes: int
) -> None:
    groups = [size for file in plan_files(rows, image_bytes, encoded=True) for size in file]
    assert sum(groups) == rows
    assert max(groups) <= 256
