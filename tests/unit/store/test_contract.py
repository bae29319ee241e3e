"""What a server does is probed once, kept beside the data, and the client adapts to it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cifarray.errors import StoreAwayError, StoreFullError, StoreRefusedError
from cifarray.store import Store
from cifarray.store.contract import TRAITS
from cifarray.store.layout import CONTRACT_FILE
from cifarray.store.probe import TEXT
from cifarray.store.s3_connection import Connection
from cifarray.store.s3_contract import probe
from tests.loopback import black_hole
from tests.quirky_s3 import QUIRKS, Exchange, QuirkyServer, quirky_s3
from tests.s3 import S3Server

GOOD = {trait: next(iter(meanings)) for trait, meanings in TRAITS.items()} | {"addressing": "path"}
FOUND: dict[str, dict[str, str]] = {
    "conditions refused": {"create": "refused", "replace": "refused"},
    "conditions ignored": {"create": "ignored", "replace": "ignored"},
    "If-Match refused": {"replace": "refused"},
    "If-Match ignored": {"replace": "ignored"},
    "If-Match makes what is absent": {"replace": "of what is there"},
    "Content-MD5 required": {"delete_many": "content-md5"},
    "no DeleteObjects": {"delete_many": "one by one"},
    "DeleteObjects ignored": {"delete_many": "one by one"},
    "deletes denied": {"delete": "refused", "delete_many": "unknown"},
    "checksums refused": {"checksums": "refused", "delete_many": "content-md5"},
    "checksums break signatures": {"checksums": "refused", "delete_many": "content-md5"},
    "checksums required": {"checksums": "required"},
    "virtual host only": {"addressing": "virtual"},
    "list lags behind writes": {"listing": "late"},
    "list lags behind deletes": {"listing": "late"},
    "first page is the last": {"listing": "wrong"},
    "delimiter ignored": {"listing": "wrong"},
    "multipart refused": {"multipart": "refused"},
    "copies refused": {"copy": "refused"},
    "metadata lost": {"metadata": "lost"},
    "ranges ignored": {"objects": "wrong"},
    "clock runs late": {},
    "another name": {},
}
UNSAFE = {
    "conditions refused": r"it refuses If-None-Match: \* \(501 NotImplemented\)",
    "conditions ignored": r"it ignores If-None-Match: \* and it ignores If-Match",
    "If-Match refused": r"it refuses If-Match \(501 NotImplemented\)",
    "If-Match ignored": "it ignores If-Match",
    "list lags behind writes": "its listings lag behind",
    "list lags behind deletes": r"its listings lag behind .*\(a deleted object is listed\)",
    "first page is the last": "its listings by pages or folders are incomplete",
    "delimiter ignored": "its listings by pages or folders are incomplete",
    "ranges ignored": r"different bytes than were written \(a range of an object",
    "bytes reversed": "it returns different bytes than were written",
}
LARGE_BYTES = 17 << 20


@contextmanager
def quirky_store(
    moto: S3Server, *quirks: str, prefix: str = "stores/one"
) -> Iterator[tuple[Store, QuirkyServer]]:
    """A store behind a server with these quirks, which nobody has probed."""
    uri = moto.new_store(prefix).uri  # by a client that knows of no proxy
    with quirky_s3(moto.endpoint, *quirks) as server, pytest.MonkeyPatch.context() as environment:
        address = server.address
        if "virtual host only" in quirks:
            environment.setenv("HTTP_PROXY", server.address)
            address = "http://s3.example"
        yield Store.open(uri, address), server


def again(store: Store) -> Store:
    """The same store as another part of the program opens it."""
    return Store.open(store.uri, store.endpoint)


def probed(store: Store) -> dict[str, str]:
    contract = probe(Connection(store.uri, store.endpoint))
    return {trait: answer.value for trait, answer, _ in contract.rows()}


def objects(moto: S3Server, store: Store) -> list[str]:
    """Everything that lies in the store's bucket, as it is without cifarray."""
    listed = moto.client().list_objects_v2(Bucket=store.uri.split("/")[2])
    return [item["Key"] for item in listed.get("Contents", ())]


def record_of(moto: S3Server, store: Store) -> Any:
    bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
    answer = moto.client().get_object(Bucket=bucket, Key=f"{prefix}/{CONTRACT_FILE}")
    return json.loads(answer["Body"].read())


def keep_record(moto: S3Server, store: Store, data: bytes) -> None:
    bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
    moto.client().put_object(Bucket=bucket, Key=f"{prefix}/{CONTRACT_FILE}", Body=data)


@pytest.mark.parametrize("quirk", FOUND)
def test_each_quirk_is_found_and_nothing_else(moto: S3Server, quirk: str) -> None:
    with quirky_store(moto, quirk) as (store, _):
        assert probed(store) == GOOD | FOUND[quirk]


def test_every_quirk_is_tried() -> None:
    assert set(QUIRKS) - set(FOUND) - set(UNSAFE) == {"writes denied", "full"}


def test_a_good_server_gives_the_first_answer_to_everything(s3: S3Server) -> None:
    store = s3.new_store()
    answers = probed(store)
    assert answers["addressing"] in ("path", "both")
    assert answers | {"addressing": "path"} == GOOD
    assert store.list() == [] and store.folders() == []


@pytest.mark.parametrize("prefix", ["", "stores/one"])
def test_probing_leaves_the_record_alone_behind_which_no_listing_shows(
    moto: S3Server, prefix: str
) -> None:
    with quirky_store(moto, prefix=prefix) as (store, server):
        store.check_writes()
        assert objects(moto, store) == [f"{prefix}/{CONTRACT_FILE}".lstrip("/")]
        assert store.list() == store.folders() == []
        assert not [one for one in server.seen if len(one.body) > 3000]
        with pytest.raises(StoreRefusedError, match="refused the key"):
            store.write(CONTRACT_FILE, b"")


def test_the_record_says_who_answered_where_and_when(moto: S3Server) -> None:
    with quirky_store(moto, "another name") as (store, _):
        store.write("a", b"")
        record = record_of(moto, store)
        assert record["schema_version"] == 1
        assert (record["uri"], record["endpoint"]) == (store.uri, store.endpoint)
        assert record["server"] == "another server"
        assert record["probed_at"].endswith("+00:00")
        assert list(record["answers"]) == list(TRAITS)
        text = json.dumps(record)
        assert moto.access_key not in text and moto.secret_key not in text


def test_a_later_process_reads_the_contract_by_one_request_and_never_probes(
    moto: S3Server,
) -> None:
    script = (
        "import sys; from cifarray.store import Store\n"
        "store = Store.open(sys.argv[1], sys.argv[2]); store.write('a', b'1')\n"
        "store.write('b', b'2'); Store.open(*sys.argv[1:]).write('c', b'3')"
    )
    with quirky_store(moto, "checksums required") as (store, server):
        store.write("first", b"")
        server.seen.clear()
        subprocess.run(
            [sys.executable, "-c", script, store.uri, store.endpoint or ""],
            check=True,
            cwd=Path(__file__).parents[3],
        )
        assert server.count("GET", CONTRACT_FILE) == 1
        assert [one.path.rpartition("/")[2] for one in server.seen if one.method == "PUT"] == [
            *("a", "b", "c")
        ]
        assert {one.status for one in server.seen} == {200}


def _damaged(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()[:-20]


def _no_object(_: dict[str, Any]) -> bytes:
    return b"[1, 2]"


def _changed(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda record: json.dumps(record | changes).encode()


def _answering(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda record: json.dumps(record | {"answers": record["answers"] | changes}).encode()


@pytest.mark.parametrize(
    "forge",
    [
        _damaged,
        _no_object,
        _changed(schema_version=0),
        _changed(uri="s3://another/store"),
        _changed(endpoint="https://elsewhere.example"),
        _changed(server="another server"),
        _changed(answers={}),
        _changed(answers=None),
        _answering(create={"value": "perhaps", "said": ""}),
        _answering(create="obeyed"),
        _answering(more={"value": "obeyed", "said": ""}),
    ],
)
def test_a_record_that_is_damaged_older_or_foreign_is_probed_anew(
    moto: S3Server, forge: Callable[[dict[str, Any]], bytes]
) -> None:
    with (
        quirky_store(moto, "virtual host only", "no DeleteObjects") as (store, _),
        quirky_s3(moto.endpoint, "virtual host only") as server,
    ):
        probe(Connection(store.uri, store.endpoint))
        sound = record_of(moto, store)
        keep_record(moto, store, forge(sound))
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("HTTP_PROXY", server.address)
            again(store).write("a", b"")
        assert record_of(moto, store)["answers"]["delete_many"]["value"] == "batch"
        assert record_of(moto, store)["uri"] == store.uri


def test_a_record_that_was_made_through_a_port_forward_holds_for_all(moto: S3Server) -> None:
    with quirky_store(moto, "no DeleteObjects") as (store, _):
        store.write("a", b"")
        with quirky_s3(moto.endpoint) as forwarded:
            other = Store.open(store.uri, forwarded.address)
            other.write("b", b"")
            other.delete(["a"])
            assert forwarded.count("POST") == 0
            asked = [one for one in forwarded.seen if CONTRACT_FILE in one.path]
            assert [(one.method, one.status) for one in asked] == [
                *(("GET", 200), ("PUT", 412), ("PUT", 412))
            ]
            assert record_of(moto, store)["endpoint"] == store.endpoint


def test_a_record_keeps_the_address_that_is_no_port_forward(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods ask by one request, though it was a port-forward through which the store was probed."""
    store = moto.new_store()
    store.write("a", b"")
    with quirky_s3(moto.endpoint, "virtual host only") as server:
        monkeypatch.setenv("HTTP_PROXY", server.address)
        Store.open(store.uri, "http://s3.example").write("b", b"")
        assert record_of(moto, store)["endpoint"] == "http://s3.example"
        monkeypatch.delenv("HTTP_PROXY")
        with quirky_s3(moto.endpoint) as forwarded:
            Store.open(store.uri, forwarded.address).write("c", b"")
            assert len(forwarded.seen) < 10
        assert record_of(moto, store)["endpoint"] == "http://s3.example"


@pytest.mark.parametrize("quirk", ["conditions ignored", "If-Match ignored", "conditions refused"])
def test_a_record_from_another_address_makes_no_unsafe_server_safe(
    moto: S3Server, quirk: str
) -> None:
    store = moto.new_store()
    store.write("a", b"")
    with (
        quirky_s3(moto.endpoint, quirk) as server,
        pytest.raises(StoreRefusedError, match="If-Match"),
    ):
        Store.open(store.uri, server.address).write("a", b"")


@pytest.mark.parametrize("quirk", UNSAFE)
def test_an_unsafe_server_is_refused_in_one_sentence_before_anything_is_written(
    moto: S3Server, quirk: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with quirky_store(moto, quirk) as (store, server):
        writes = (
            store.check_writes,
            lambda: store.write("a", b""),
            lambda: store.create("a", b""),
            lambda: store.replace("a", b"", "tag"),
            lambda: store.upload(tmp_path / "file", "a"),
        )
        for write in writes:
            with pytest.raises(StoreRefusedError, match=UNSAFE[quirk]) as caught:
                write()
            sentence = str(caught.value)
            assert "\n" not in sentence and "so that" in sentence
            assert "use another store" in sentence
            command = f"cifarray doctor --store {store.uri} --endpoint {store.endpoint}"
            assert command in sentence
        written = [one.path for one in server.seen if one.method == "PUT"]
        assert all("/.cifarray-" in path for path in written)


def test_a_server_that_was_refused_is_asked_again(moto: S3Server) -> None:
    with quirky_store(moto, "conditions ignored") as (store, _):
        with pytest.raises(StoreRefusedError):
            store.check_writes()
        assert record_of(moto, store)["answers"]["create"]["value"] == "ignored"
        with quirky_s3(moto.endpoint) as mended:
            Store.open(store.uri, mended.address).write("a", b"1")
        assert record_of(moto, store)["answers"]["create"]["value"] == "obeyed"


def test_who_only_reads_neither_probes_nor_needs_the_right_to_write(moto: S3Server) -> None:
    with quirky_store(moto, "writes denied") as (store, server):
        Store.open(store.uri, moto.endpoint).write("runs/x", b"1")
        assert store.read("runs/x") == b"1"
        assert [entry.key for entry in store.list()] == ["runs/x"]
        assert store.folders() == ["runs"] and store.exists("runs/x")
        assert {one.method for one in server.seen} <= {"GET", "HEAD"}
        with pytest.raises(StoreRefusedError, match=r"does not let these .* PutObject runs/y"):
            store.write("runs/y", b"")


def test_keys_that_may_not_probe_write_where_they_may(moto: S3Server) -> None:
    QUIRKS["probe denied"] = lambda: _probe_denied()
    try:
        with quirky_store(moto, "probe denied") as (store, _):
            store.write("runs/x", b"1")
            assert store.read("runs/x") == b"1"
            store.delete(["runs/x"])
            assert objects(moto, store) == []
    finally:
        del QUIRKS["probe denied"]


def _probe_denied() -> Any:
    from tests.quirky_s3 import Quirk

    def asked(one: Exchange) -> None:
        if one.method == "PUT" and "/.cifarray-" in one.path:
            one.refuse(403, "AccessDenied")

    return Quirk(asked)


def test_a_full_store_can_be_emptied_though_nobody_has_probed_it(moto: S3Server) -> None:
    with quirky_store(moto, "full", "Content-MD5 required") as (store, _):
        Store.open(f"{store.uri}", moto.endpoint).write("runs/x", b"1")
        moto.client().delete_object(
            Bucket=store.uri.split("/")[2], Key=f"stores/one/{CONTRACT_FILE}"
        )
        with pytest.raises(StoreFullError):
            store.write("runs/y", b"")
        store.delete_folder("runs")
        assert objects(moto, store) == []


def test_nothing_is_kept_of_a_server_that_goes_away(moto: S3Server) -> None:
    with quirky_store(moto) as (store, server):
        server.lose = lambda one: one.method == "PUT" and one.path.endswith(CONTRACT_FILE)
        store.write("a", b"")
        assert [one.lost for one in server.seen].count(True) == 1
    with pytest.raises(StoreAwayError):
        again(store).list()


@pytest.mark.parametrize("number", range(3))
def test_an_answer_that_is_lost_while_the_server_is_probed_changes_no_answer(
    moto: S3Server, number: int
) -> None:
    """The repeated request then finds what the first one has written."""
    conditions = 0

    def lose(one: Exchange) -> bool:
        nonlocal conditions
        conditions += one.has("if-none-match", "if-match") and one.status == 200
        return conditions == number + 1

    with quirky_store(moto) as (store, server):
        server.lose = lose
        if number < 2:  # a new object, and a replaced one
            assert probed(store) == GOOD
            assert [one.lost for one in server.seen].count(True) == 1
        else:
            assert probed(store) == GOOD
            assert server.lose is not None


def test_objects_are_deleted_with_content_md5_where_it_is_required(moto: S3Server) -> None:
    with quirky_store(moto, "Content-MD5 required") as (store, server):
        store.write("runs/a/x", b"")
        store.write("runs/a/y", b"")
        server.seen.clear()
        later = again(store)  # knows it from the record, without a refused request
        later.delete_folder("runs/a")
        asked = [one for one in server.seen if one.deletes_many]
        assert [
            (one.status, one.has("content-md5"), one.has("x-amz-checksum")) for one in asked
        ] == [(200, True, False)]
        assert store.list() == []


@pytest.mark.parametrize("quirk", ["no DeleteObjects", "DeleteObjects ignored"])
def test_objects_are_deleted_one_by_one_where_lists_do_not_work(moto: S3Server, quirk: str) -> None:
    with quirky_store(moto, quirk) as (store, server):
        for name in ("checkpoint.json", "state.pt", "a", "b"):
            store.write(f"runs/a/{name}", b"")
        server.seen.clear()
        again(store).delete_folder("runs/a")
        deleted = [one.path.rpartition("/")[2] for one in server.seen if one.method == "DELETE"]
        assert sorted(deleted) == ["a", "b", "checkpoint.json", "state.pt"]
        assert deleted[0] == "checkpoint.json"
        assert not [one for one in server.seen if one.deletes_many]
        assert store.list() == []


@pytest.mark.parametrize("quirk", ["Content-MD5 required", "no DeleteObjects"])
def test_deletes_find_their_way_without_a_record(moto: S3Server, quirk: str) -> None:
    with quirky_store(moto, quirk) as (store, server):
        Store.open(store.uri, moto.endpoint).write("a", b"")
        moto.client().delete_object(
            Bucket=store.uri.split("/")[2], Key=f"stores/one/{CONTRACT_FILE}"
        )
        store.delete(["a"])
        assert store.list() == []
        assert not [one for one in server.seen if one.method == "PUT"]


def test_a_store_that_lets_nothing_be_deleted_says_so(moto: S3Server) -> None:
    with quirky_store(moto, "deletes denied") as (store, _):
        store.write("a", b"")
        with pytest.raises(StoreRefusedError, match="does not let these credentials Delete"):
            store.delete(["a"])


def test_checksums_are_sent_where_they_are_required_and_nowhere_else(
    moto: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"1" * LARGE_BYTES)
    for quirk in ("checksums required", "checksums refused", "checksums break signatures"):
        with quirky_store(moto, quirk) as (store, server):
            store.check_writes()
            server.seen.clear()
            later = again(store)
            later.write("a", b"1")
            assert later.create("b", b"1")
            later.upload(tmp_path / "file", "c")
            assert later.size("c") == LARGE_BYTES
            later.delete_folder("")
            sent = {one.has("x-amz-checksum-crc32") for one in server.seen if one.method == "PUT"}
            assert sent == {quirk == "checksums required"}


def test_a_server_that_takes_the_bucket_in_the_host_name_alone_is_used_as_any_other(
    moto: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"1" * LARGE_BYTES)
    with quirky_store(moto, "virtual host only") as (store, server):
        store.write("runs/a", b"1")
        store.upload(tmp_path / "file", "runs/b")
        store.copy_folder("runs", "copies")
        assert store.read("copies/a") == b"1" and store.size("copies/b") == LARGE_BYTES
        assert store.folders() == ["copies", "runs"]
        store.delete_folder("runs")
        assert [entry.key for entry in store.list()] == ["copies/a", "copies/b"]
        refused = [one for one in server.seen if one.status == 403]
        assert len(refused) == 2  # the first listing, and the probe of the other style


def test_the_answer_that_counts_is_told_where_neither_style_works(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = moto.endpoint.rpartition(":")[2]
    with pytest.raises(StoreRefusedError, match="no bucket 'no-such-bucket' at"):
        Store.open("s3://no-such-bucket", f"http://localhost:{port}").check()
    with quirky_s3(moto.endpoint, "virtual host only") as server:
        monkeypatch.setenv("HTTP_PROXY", server.address)
        with pytest.raises(StoreRefusedError, match=r"no bucket 'no-such-bucket' at http://s3"):
            Store.open("s3://no-such-bucket", "http://s3.example").check()
    with black_hole() as address:
        monkeypatch.setenv("HTTP_PROXY", address)
        with pytest.raises(StoreAwayError, match="does not answer"):
            Store.open("s3://no-such-bucket", "http://s3.example").check()


def test_objects_go_by_one_request_where_parts_are_refused(moto: S3Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1" * LARGE_BYTES)
    with quirky_store(moto, "multipart refused") as (store, server):
        store.upload(tmp_path / "file", "runs/a")
        store.copy_folder("runs", "copies")
        assert store.size("copies/a") == LARGE_BYTES
        sent = [one for one in server.seen if one.method == "PUT" and "/runs/a" in one.path]
        assert len(sent) == 1


@pytest.mark.parametrize("quirks", [("copies refused",), ("copies refused", "multipart refused")])
def test_objects_are_read_and_written_where_copies_are_refused(
    moto: S3Server, tmp_path: Path, quirks: tuple[str, ...]
) -> None:
    data = bytes(range(256)) * (LARGE_BYTES >> 8)
    (tmp_path / "file").write_bytes(data)
    with quirky_store(moto, *quirks) as (store, _):
        store.upload(tmp_path / "file", "runs/a")
        store.write("runs/manifest.json", b"2")
        store.copy_folder("runs", "copies")
        assert store.read("copies/a") == data
        assert store.read("copies/manifest.json") == b"2"


def test_an_object_that_is_gone_is_not_made_anew_by_if_match(moto: S3Server) -> None:
    with quirky_store(moto, "If-Match makes what is absent") as (store, _):
        tag = store.create("lease", b"first")
        assert tag is not None
        second = store.replace("lease", b"second", tag)
        assert second is not None
        assert store.replace("lease", b"third", tag) is None
        store.delete(["lease"])
        assert store.replace("lease", b"fourth", second) is None
        assert not store.exists("lease")


def test_the_probes_own_objects_have_a_size_that_nobody_pays_for() -> None:
    assert len(TEXT) < 100
