"""A store that is away or full is waited for; what it then says is right, and nothing is lost."""

import pickle
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarray.errors import (
    KeyMissingError,
    StoreAwayError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
)
from cifarray.store import Store
from cifarray.store.patience import PatientStore, Wait
from cifarray.store.s3 import LEAST_MULTIPART_BYTES, PART_BYTES
from cifarray.store.s3_connection import ATTEMPTS
from tests.holding_proxy import Fault, HoldingProxy, Request, holding_proxy
from tests.s3 import S3Server

RUNS_S = 30.0
"""As a run's patience: longer than any outage here."""
KINDS = ("answer", "reset", "cut", "lost answer")


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[HoldingProxy]:
    with holding_proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def beyond(s3: S3Server, proxy: HoldingProxy) -> Store:
    """A store that is reached through the proxy, with a person's patience."""
    return Store.open(s3.new_store().uri, proxy.address)


class Outage:
    """Lets every request fail until it is over: so many seconds after the first one failed."""

    def __init__(self, fault: Fault) -> None:
        self.fault: Fault | None = fault
        self._seconds, self._since = float("inf"), float("inf")

    def __call__(self, request: Request) -> Fault | None:
        now = time.monotonic()
        self._since = min(self._since, now)
        return self.fault if now < self._since + self._seconds else None

    def end_in(self, seconds: float) -> None:
        self._seconds = seconds


def calls(store: Store, folder: Path) -> dict[str, Callable[[], object]]:
    """Every operation of a store, on what `filled` has put there."""
    (folder / "file").write_bytes(b"file" * 100)
    return {
        "check": store.check,
        "exists": lambda: store.exists("a/b"),
        "size": lambda: store.size("a/b"),
        "read": lambda: store.read("a/b"),
        "write": lambda: store.write("a/w", b"w"),
        "extend": lambda: store.extend("a/e", b"e", 0),
        "create": lambda: store.create("a/new", b"new"),
        "replace": lambda: store.replace("a/r", b"after", tag_of(store, "a/r")),
        "list": lambda: store.list("a"),
        "folders": lambda: store.folders(""),
        "delete": lambda: store.delete(["a/gone"]),
        "delete_folder": lambda: store.delete_folder("a/f"),
        "upload": lambda: store.upload(folder / "file", "a/u"),
        "copy_folder": lambda: store.copy_folder("a", "copy"),
        "download": lambda: store.download("a/b", folder / "copy"),
        "sha256": lambda: store.sha256("a/b"),
        "filesystem": store.filesystem,
        "open_input": lambda: store.open_input("a/b").read(),
    }


def tag_of(store: Store, key: str) -> str:
    return store.read_tagged(key)[1]


def filled(store: Store) -> Store:
    for key in ("a/b", "a/r", "a/gone", "a/f/1", "a/f/2"):
        store.write(key, key.encode())
    return store


@pytest.mark.parametrize("fault", [Fault("answer"), Fault("reset")], ids=["503", "reset"])
def test_every_operation_waits_for_a_store_that_is_away_for_a_while(
    beyond: Store, proxy: HoldingProxy, tmp_path: Path, fault: Fault
) -> None:
    filled(beyond)
    store = beyond.patient(RUNS_S)
    for name, call in calls(store, tmp_path).items():
        proxy.fault = outage = Outage(fault)
        proxy.faults.clear()
        outage.end_in(0.6)
        began = time.monotonic()
        call()
        assert time.monotonic() - began > 0.5 and proxy.faults, name
    assert store.read("a/w") + store.read("a/r") + store.read("a/new") == b"wafternew"
    assert store.read("copy/u") == b"file" * 100
    assert not store.exists("a/f/1")


def test_a_wait_is_told_when_it_begins_and_when_it_is_over(
    beyond: Store, proxy: HoldingProxy
) -> None:
    told: list[Wait | None] = []
    store = beyond.patient(RUNS_S, told.append)
    store.write("a", b"")
    proxy.fault = outage = Outage(Fault("reset"))
    outage.end_in(4.5)  # longer than a single request is repeated
    assert store.read("a") == b""
    begin, end = told
    assert begin is not None
    assert str(begin).startswith("waiting for the store since ")
    assert proxy.address in str(begin)
    assert end is None


def test_a_full_store_is_waited_for_and_called_full(
    beyond: Store, proxy: HoldingProxy, tmp_path: Path
) -> None:
    told: list[Wait | None] = []
    store = beyond.patient(RUNS_S, told.append)
    store.check()
    proxy.fault = outage = Outage(Fault("answer", 507, "InsufficientStorage"))
    outage.end_in(1.0)
    store.write("a", b"1")
    assert store.read("a") == b"1"
    assert str(told[0]).startswith("waiting for space in the store since ")
    proxy.fault = Outage(Fault("answer", 507, "InsufficientStorage"))
    (tmp_path / "file").write_bytes(b"x" * (LEAST_MULTIPART_BYTES + 1))
    for put in (lambda: store.write("a", b"2"), lambda: store.upload(tmp_path / "file", "b")):
        store.shorten(0.5)
        with pytest.raises(StoreFullError, match=r"InsufficientStorage.* gave up after "):
            put()


def test_a_full_store_that_takes_small_objects_is_waited_for_once(
    beyond: Store, proxy: HoldingProxy
) -> None:
    """As on a disk with some kilobytes left: heartbeats arrive, and the upload waits on."""
    told: list[Wait | None] = []
    store = beyond.patient(RUNS_S, told.append)
    outage = Outage(Fault("answer", 507, "InsufficientStorage"))
    proxy.fault = lambda asked: outage(asked) if asked.path.endswith("/large") else None
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(store.write, "large", b"l" * 1000)
        while not told:
            time.sleep(0.01)
        for number in range(5):
            store.write("small", f"{number}".encode())
            time.sleep(0.2)
        assert len(told) == 1 and told[0] is not None and told[0].full
        outage.end_in(0)
        upload.result(timeout=RUNS_S)
    assert told[1:] == [None]


def test_who_waited_in_vain_waits_no_second_time_until_the_store_answers(
    beyond: Store, proxy: HoldingProxy
) -> None:
    store = beyond.patient(20.0)
    store.write("a", b"")
    proxy.fault = outage = Outage(Fault("reset"))
    store.shorten(0.5)
    with pytest.raises(StoreAwayError, match=r"gave up after \d+ s"):
        store.read("a")
    began = time.monotonic()
    with pytest.raises(StoreAwayError):
        store.read("a")
    outage.fault = None
    store.read("a")
    assert time.monotonic() - began < 10


def test_a_person_who_names_a_wrong_address_need_not_wait(s3: S3Server) -> None:
    began = time.monotonic()
    with pytest.raises(StoreAwayError, match=r"cannot reach http://127.0.0.1:1"):
        Store.open("s3://bucket/prefix", "http://127.0.0.1:1").read("a")
    assert time.monotonic() - began < 5


def test_a_run_waits_for_a_store_that_has_never_answered(
    beyond: Store, proxy: HoldingProxy
) -> None:
    proxy.fault = outage = Outage(Fault("reset"))
    outage.end_in(2.0)
    with pytest.raises(KeyMissingError):
        beyond.patient(RUNS_S).read("a")


@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket"), (501, "NotImplemented")]
)
def test_a_store_that_refuses_is_not_waited_for(
    beyond: Store, proxy: HoldingProxy, status: int, code: str
) -> None:
    store = beyond.patient(RUNS_S)
    store.write("a", b"")
    proxy.fault = Outage(Fault("answer", status, code))
    began = time.monotonic()
    with pytest.raises(StoreRefusedError):
        store.write("a", b"")
    assert time.monotonic() - began < 2
    assert StoreRefusedError("").exit_code == 1


def test_a_conditional_write_whose_answer_is_lost_is_won_once(
    beyond: Store, proxy: HoldingProxy
) -> None:
    store = beyond.patient(RUNS_S)
    store.check()

    def lose(key: str) -> Callable[[Request], Fault | None]:
        left = ["lost answer"]
        return lambda asked: (
            Fault("lost answer")
            if asked.method == "PUT" and key in asked.path and left and left.pop()
            else None
        )

    proxy.fault = lose("lease")
    tag = store.create("lease", b"first")
    assert tag is not None
    assert store.create("lease", b"second") is None
    proxy.fault = lose("lease")
    assert store.replace("lease", b"third", tag) is not None
    assert len(proxy.faults) == 2
    assert store.replace("lease", b"fourth", tag) is None
    assert store.read("lease") == b"third"


@pytest.mark.parametrize("meanwhile", [None, b"of another"])
@pytest.mark.parametrize("operation", ["create", "replace"])
def test_a_conditional_write_whose_repeats_fail_too_is_won_if_it_was_carried_out(
    beyond: Store, proxy: HoldingProxy, s3: S3Server, operation: str, meanwhile: bytes | None
) -> None:
    """The client gives up before it hears of its first try; the store's own repetition asks."""
    store = beyond.patient(RUNS_S)
    before = store.create("lease", b"before")
    assert before is not None
    key = "lease" if operation == "replace" else "new"
    faults = [Fault("lost answer"), *[Fault("reset")] * (ATTEMPTS - 1)]

    def fail(asked: Request) -> Fault | None:
        if asked.method != "PUT" or not asked.path.endswith(key):
            return None
        if len(faults) == 1 and meanwhile is not None:
            Store.open(store.uri, s3.endpoint).write(key, meanwhile)
        return faults.pop(0) if faults else None

    proxy.fault = fail
    tag = store.replace(key, b"x", before) if operation == "replace" else store.create(key, b"x")
    assert proxy.kinds == {"lost answer": 1, "reset": ATTEMPTS - 1}
    stored, now = store.read_tagged(key)
    assert (stored, tag) == ((b"x", now) if meanwhile is None else (meanwhile, None))


def test_a_patient_store_travels_with_its_patience(beyond: Store) -> None:
    again = pickle.loads(pickle.dumps(beyond.patient(77.0)))
    assert isinstance(again, PatientStore)
    assert again == beyond
    assert again.limit_s == 77.0


def test_one_request_in_ten_that_fails_changes_neither_data_nor_random_numbers(
    beyond: Store, proxy: HoldingProxy, tmp_path: Path
) -> None:
    """Resets, cut bodies, lost answers, 500 and 503: all of it is repeated."""
    dice = random.Random(26)
    store = beyond.patient(RUNS_S)
    filled(store)

    def one_in_ten(request: Request) -> Fault | None:
        if dice.random() > 0.1:
            return None
        kind = dice.choice(KINDS)
        return Fault(kind, dice.choice((500, 503)), "InternalError")  # type: ignore[arg-type]

    proxy.fault = one_in_ten
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    content = dice.randbytes(LEAST_MULTIPART_BYTES + PART_BYTES // 2)
    (tmp_path / "large").write_bytes(content)
    for number in range(12):
        store.write(f"n/{number}", bytes([number]) * 5000)
        tag = store.create(f"c/{number}", b"created")
        assert tag is not None
        assert store.replace(f"c/{number}", b"replaced", tag) is not None
        assert store.read(f"n/{number}") == bytes([number]) * 5000
        store.delete([f"n/{number}"])
    store.upload(tmp_path / "large", "large")
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    with store.open_input("large") as file:
        file.seek(PART_BYTES)
        assert file.read(1000) == content[PART_BYTES : PART_BYTES + 1000]
    assert len(store.list("c")) == 12
    assert not store.list("n")
    assert proxy.kinds.keys() == set(KINDS)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before


@pytest.mark.parametrize("size", [5_000, LEAST_MULTIPART_BYTES + 5])
def test_an_upload_of_which_the_server_loses_something_has_not_arrived(
    beyond: Store, proxy: HoldingProxy, s3: S3Server, tmp_path: Path, size: int
) -> None:
    """The server says 200 and holds other bytes, as one does whose disk was full behind it."""
    store = beyond.patient(0.5)
    store.check()
    bucket, _, key = store.path("state.pt").partition("/")
    other = s3.client()

    def lose(request: Request) -> None:
        if request.method == "HEAD" and "state.pt" in request.path:
            other.put_object(Bucket=bucket, Key=key, Body=b"")

    proxy.fault = lose
    (tmp_path / "state.pt").write_bytes(b"x" * size)
    with pytest.raises(StoreAwayError, match=r"state\.pt did not arrive intact in .*: 0 of"):
        store.upload(tmp_path / "state.pt", "state.pt")
    proxy.fault = lambda request: None
    store.upload(tmp_path / "state.pt", "state.pt")
    assert store.size("state.pt") == size


def test_what_pyarrow_copies_and_a_full_store_refuses_is_an_error_at_the_next_operation(
    beyond: Store, proxy: HoldingProxy, tmp_path: Path
) -> None:
    """`copy_files` itself says nothing: it closes the file in a destructor."""
    from pyarrow.fs import copy_files

    store = beyond.patient(0.5)
    filesystem = store.filesystem()
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "state.pt").write_bytes(b"x" * 5000)
    proxy.fault = lambda asked: (
        Fault("answer", 507, "InsufficientStorage") if asked.method == "PUT" else None
    )
    copy_files(str(tmp_path / "from"), store.path("to"), destination_filesystem=filesystem)
    with pytest.raises(StoreFullError):
        filesystem.get_file_info(store.path("to/state.pt"))
    proxy.fault = lambda request: None
    copy_files(str(tmp_path / "from"), store.path("to"), destination_filesystem=filesystem)
    assert filesystem.get_file_info(store.path("to/state.pt")).size == 5000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_directory_on_a_full_disk_is_full_and_loses_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    store = Store.open(str(small_disk / "store")).patient(0.5)
    store.write("kept", b"x" * 4_000_000)
    (tmp_path / "large").write_bytes(b"y" * 4_000_000)
    with pytest.raises(StoreFullError, match="No space left"):
        store.upload(tmp_path / "large", "large")
    with pytest.raises(StoreFullError, match="No space left"):
        store.write("large", b"z" * 4_000_000)
    assert [entry.key for entry in store.list()] == ["kept"]
    store.delete(["kept"])
    store.upload(tmp_path / "large", "large")
    assert store.size("large") == 4_000_000


def test_a_read_only_store_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        Store.open("/proc/cifarray").write("a", b"")
    assert not isinstance(caught.value, StoreAwayError)
