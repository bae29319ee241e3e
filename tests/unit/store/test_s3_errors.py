"""What goes wrong between here and a bucket is one sentence that says what to do, within 15 s."""

import os
import re
import time
from pathlib import Path

import pytest

from cifarray.errors import CifarrayError, KeyMissingError, StoreError
from cifarray.store import Store
from tests.loopback import answering, black_hole
from tests.s3 import S3Server

CODES = {
    "NoSuchBucket": (404, "no bucket 'bucket' at .*aws s3 mb s3://bucket .*--store"),
    "InvalidAccessKeyId": (403, "does not know the given access key .*AWS_ACCESS_KEY_ID"),
    "XAdminUserNotFound": (404, "does not know the given access key .*AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, "refuses the given secret key .*AWS_SECRET_ACCESS_KEY"),
    "AccessDenied": (403, "does not let these credentials .*ask its owner"),
    "ExpiredToken": (400, "have expired .*renew them"),
    "PermanentRedirect": (301, "is in another region .*AWS_REGION"),
    "RequestTimeTooSkewed": (403, "clock"),
    "SomethingNew": (400, "SomethingNew, message of the server"),
}


@pytest.fixture
def guarded_store(guarded: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in guarded.environment.items():
        monkeypatch.setenv(name, value)
    return guarded.new_store()


def _refusal(store: Store) -> str:
    begin = time.monotonic()
    with pytest.raises(StoreError) as caught:
        store.check()
    assert time.monotonic() - begin < 15
    assert not isinstance(caught.value, KeyMissingError)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence[0].islower()
    assert "Traceback" not in sentence
    return sentence


def test_right_credentials_are_taken_by_boto3_and_by_arrow(guarded_store: Store) -> None:
    guarded_store.check()
    guarded_store.write("a", b"1")
    with guarded_store.filesystem().open_output_stream(guarded_store.path("b")) as stream:
        stream.write(b"2")
    assert guarded_store.open_input("a").read() == b"1"
    assert guarded_store.read("b") == b"2"


def test_an_unknown_access_key_is_said(
    guarded_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN000000000")
    sentence = _refusal(guarded_store)
    assert "does not know the given access key" in sentence
    assert "AWS_ACCESS_KEY_ID" in sentence
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in sentence


def test_a_wrong_secret_is_said(guarded_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-of-mine")
    sentence = _refusal(guarded_store)
    assert "refuses the given secret key" in sentence
    assert "wrong-secret-of-mine" not in sentence


def test_no_credentials_at_all_is_said(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3.new_store()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert re.search("no credentials .*AWS_ACCESS_KEY_ID .*AWS_PROFILE", _refusal(store))


def test_a_profile_that_does_not_exist_is_said(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3.new_store()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert re.search("no credentials .*nobody", _refusal(store))


def test_a_missing_bucket_is_said_and_how_to_make_it(s3: S3Server) -> None:
    sentence = _refusal(Store.open("s3://no-such-bucket-here/prefix", s3.endpoint))
    assert f"aws s3 mb s3://no-such-bucket-here --endpoint-url {s3.endpoint}" in sentence


def test_a_refused_connection_is_said(s3: S3Server) -> None:
    sentence = _refusal(Store.open("s3://bucket/prefix", "http://127.0.0.1:1"))
    assert re.search("cannot reach http://127.0.0.1:1: connection refused; .*--endpoint", sentence)


def test_a_server_that_never_answers_is_said_within_15_s(s3: S3Server) -> None:
    with black_hole() as address:
        sentence = _refusal(Store.open("s3://bucket/prefix", address))
    assert f"cannot reach {address}: it does not answer" in sentence


def test_a_host_without_an_address_is_said(s3: S3Server) -> None:
    sentence = _refusal(Store.open("s3://bucket/prefix", "http://no-such-host.invalid:9000"))
    assert "cannot reach http://no-such-host.invalid:9000" in sentence


@pytest.mark.parametrize("code", CODES)
def test_each_code_of_a_server_has_its_sentence(s3: S3Server, code: str) -> None:
    status, expected = CODES[code]
    body = f"<Error><Code>{code}</Code><Message>message of the server</Message></Error>".encode()
    with answering(lambda _: (status, {"Content-Type": "application/xml"}, body)) as address:
        sentence = _refusal(Store.open("s3://bucket/prefix", address))
    assert re.search(expected, sentence), sentence


def test_something_that_is_no_s3_server_is_said(s3: S3Server) -> None:
    page = b"<html><body>It works!</body></html>"
    with answering(lambda _: (200, {"Content-Type": "text/html"}, page)) as address:
        sentence = _refusal(Store.open("s3://bucket/prefix", address))
    assert f"cannot reach {address}: the server there is not an S3 server" in sentence


def test_the_first_use_of_a_store_checks_it_so_that_no_command_waits_long(s3: S3Server) -> None:
    store = Store.open("s3://no-such-bucket-here/prefix", s3.endpoint)
    for call in (store.list, store.filesystem, lambda: store.read("a")):
        with pytest.raises(StoreError, match="no bucket 'no-such-bucket-here'"):
            call()


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("s3://key:topsecret@bucket/prefix", None),
        ("s3://bucket/prefix", "http://key:topsecret@host:9000"),
        ("s3://bucket/prefix", "http://host:9000?token=topsecret"),
        ("s3://bucket/prefix", "host:9000"),
        ("s3://bucket/prefix", "http://host:port"),
        ("s3://bucket/prefix", "http://host:9000/path"),
    ],
)
def test_an_address_with_credentials_or_without_sense_is_refused(
    uri: str, endpoint: str | None
) -> None:
    with pytest.raises(CifarrayError) as caught:
        Store.open(uri, endpoint)
    assert "topsecret" not in str(caught.value)
    assert "give" in str(caught.value)


def test_the_endpoint_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:1")
    assert Store.open("s3://bucket/prefix").endpoint == "http://general:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://special:2/")
    assert Store.open("s3://bucket/prefix").endpoint == "http://special:2"
    assert Store.open("s3://bucket/prefix", "http://given:3").endpoint == "http://given:3"


def test_nothing_that_a_store_shows_of_itself_holds_a_secret(s3: S3Server) -> None:
    store = s3.new_store()
    store.write("a", b"")
    store.filesystem()
    shown = f"{store!r} {store} {store.spec!r} {store.spec.model_dump()} {store.__reduce__()}"
    assert s3.secret_key not in shown
    assert s3.access_key not in shown


def test_a_hostile_listing_yields_no_key_that_leaves_the_root(s3: S3Server) -> None:
    names = [
        "p/../../etc/passwd",
        "p//etc/passwd",
        "p/..",
        "p/runs/../../x",
        "p/a\\b",
        "p/folder/",
        "p/runs/good",
        "elsewhere",
        "p/\u202egnp.exe",
    ]
    items = "".join(
        f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"e"</ETag><Size>1</Size></Contents>'
        for name in names
    )
    folders = "".join(
        f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"
        for name in ("p/runs/../", "p/runs/good/", "p/runs//", "p/runs/a\\b/")
    )
    head = '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>'
    body = f"{head}{items}{folders}</ListBucketResult>".encode()
    with answering(lambda _: (200, {"Content-Type": "application/xml"}, body)) as address:
        store = Store.open("s3://bucket/p", address)
        assert [entry.key for entry in store.list()] == ["runs/good"]
        assert store.folders("runs") == ["good"]


def test_a_read_that_the_server_refuses_says_which_object(s3: S3Server, tmp_path: Path) -> None:
    empty = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>'
    listing = (200, {"Content-Type": "application/xml"}, empty + b"</ListBucketResult>")
    denied = (403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
    with answering(lambda asked: listing if "list-type" in asked else denied) as address:
        store = Store.open("s3://bucket/p", address)
        calls = (
            lambda: store.read("runs/x"),
            lambda: store.exists("runs/x"),
            lambda: store.write("runs/x", b""),
            lambda: store.create("runs/x", b""),
            lambda: store.upload(Path(__file__), "runs/x"),
            lambda: store.open_input("runs/x"),
        )
        for call in calls:
            with pytest.raises(StoreError, match=r"runs/x") as caught:
                call()
            assert "\n" not in str(caught.value)
