"""Commands on servers with quirks, as typed: `doctor --store`, and refusals before an upload."""

import json
from collections.abc import Iterator

import pytest

from cifarray.runs import Run
from cifarray.store import Store
from tests.quirky_s3 import QuirkyServer, quirky_s3
from tests.s3 import S3Server
from tests.unit.cli.conftest import Type
from tests.unit.runs.conftest import run_spec

RUN_ID = "train-digits-261123-100000-abcd"


@pytest.fixture(params=["conditions refused", "conditions ignored"])
def unsafe(request: pytest.FixtureRequest, moto: S3Server) -> Iterator[QuirkyServer]:
    with quirky_s3(moto.endpoint, request.param) as server:
        yield server


def refused(said: str, server: QuirkyServer) -> bool:
    """Whether a command has said so, and written nothing that a listing could show."""
    written = [one.path for one in server.seen if one.method in ("PUT", "POST")]
    assert all("/.cifarray-" in path or path.endswith("?delete") for path in written)
    return "If-None-Match" in said and "use another store" in said and "cifarray doctor" in said


@pytest.mark.parametrize(
    "command",
    ["data prepare digits", "submit train-digits --prepare", "run train-digits --prepare"],
)
def test_an_unsafe_server_is_refused_before_the_upload(
    typed: Type, moto: S3Server, unsafe: QuirkyServer, command: str
) -> None:
    where = ("--store", moto.new_store().uri, "--endpoint", unsafe.address)
    shown = typed(*command.split(), *where)
    assert shown.code == 1
    assert refused(shown.err, unsafe)


def test_a_run_is_not_resumed_on_an_unsafe_server(
    typed: Type, moto: S3Server, unsafe: QuirkyServer
) -> None:
    store = moto.new_store()
    run = Run.create(store, run_spec(RUN_ID))
    run.mark_failed("in a test")
    before = run.status()
    shown = typed("resume", RUN_ID, "--store", store.uri, "--endpoint", unsafe.address)
    assert shown.code == 1
    assert refused(shown.err, unsafe)
    assert run.status() == before


def test_a_mistyped_store_is_bad_input_and_no_folder_is_made(typed: Type, cifarray_home) -> None:  # type: ignore[no-untyped-def]
    shown = typed("data", "prepare", "digits", "--store", "s3:/bucket/prefix")
    assert shown.code == 2
    assert "give s3://bucket/prefix" in shown.err
    assert list(cifarray_home.iterdir()) == []


def test_doctor_of_a_store_prints_what_its_server_does(typed: Type, moto: S3Server) -> None:
    with quirky_s3(moto.endpoint, "Content-MD5 required", "another name") as server:
        where = ("--store", moto.new_store().uri, "--endpoint", server.address)
        shown = typed("doctor", *where)
        assert shown.code == 0, shown.out
        lines = shown.out.splitlines()
        assert lines[0].startswith("passed   store ")
        assert "another server, probed now; recorded in s3://" in lines[1]
        assert "DeleteObjects requires Content-MD5; cifarray sends it" in shown.out
        assert not [line for line in lines if "CPUs" in line]
        found = json.loads(typed("doctor", *where, "--json").out)
        assert [each["check"] for each in found][:3] == [
            "store",
            "store: contract",
            "store: objects",
        ]
        assert {each["outcome"] for each in found} == {"passed"}


def test_doctor_probes_a_store_anew_and_fails_where_it_is_unsafe(
    typed: Type, moto: S3Server, unsafe: QuirkyServer
) -> None:
    store = moto.new_store()
    Store.open(store.uri, moto.endpoint).write("a", b"")
    shown = typed("doctor", "--store", store.uri, "--endpoint", unsafe.address)
    assert shown.code == 1
    assert "2 of 14 checks failed" in shown.err
    assert "use another store" in shown.out


def test_doctor_of_a_directory_looks_at_nothing_else(typed: Type, cifarray_home) -> None:  # type: ignore[no-untyped-def]
    (cifarray_home / "other").mkdir()
    shown = typed("doctor", "--store", str(cifarray_home / "other"))
    assert shown.code == 0
    (line,) = shown.out.splitlines()
    assert line.startswith("passed   store ") and "exclusive creation work" in line
