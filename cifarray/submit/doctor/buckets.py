"""Checks of a store in a bucket: all that cifarray and its libraries ask of an S3 server."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cifarray.errors import StoreError
from cifarray.proxies import is_loopback
from cifarray.store import Store
from cifarray.store.s3_connection import Connection
from cifarray.store.s3_errors import place, translated
from cifarray.submit.doctor.record import Check, Result, failed, passed

PART_BYTES = 5 << 20
"""The smallest that S3 allows but for the last one."""
MOST_SKEW_S = 30.0
"""Ages of runs are shown by clocks, which should agree; nothing is decided by them."""
TEXT = b"cifarray doctor"
MARK = {"cifarray": "doctor"}
WHEN_REQUIRED = (
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
)


@dataclass
class Bucket:
    """A store in a bucket, and a folder in it for what the checks write."""

    store: Store
    folder: str = field(default_factory=lambda: f"doctor/{secrets.token_hex(6)}")
    at: Connection = field(init=False)
    answers: bool = False

    def __post_init__(self) -> None:
        self.at = Connection(self.store.uri, self.store.endpoint)

    def key(self, name: str) -> str:
        """A key of the store."""
        return f"{self.folder}/{name}"

    def name(self, name: str) -> str:
        """The same as a name in the bucket."""
        return "/".join(part for part in (self.at.prefix, self.key(name)) if part)


@contextmanager
def cleared(bucket: Bucket) -> Iterator[Bucket]:
    """Remove what the checks have written, where the store lets that be done at all."""
    try:
        yield bucket
    finally:
        if bucket.answers:
            with suppress(StoreError):  # the check of deleting has said so
                bucket.store.delete_folder(bucket.folder)


def reach(bucket: Bucket) -> Result:
    """It answers and lets its objects be listed."""
    bucket.store.check()
    bucket.answers = True
    return passed(f"{bucket.store.uri} at {place(bucket.at)}")


def objects(bucket: Bucket) -> Result:
    """What is written is read back, listed, and gone after it was deleted."""
    store, key = bucket.store, bucket.key("object")
    store.write(key, TEXT)
    if store.read(key) != TEXT:
        return failed("it gives back other bytes than were written", _other_server())
    if [entry.key for entry in store.list(bucket.folder)] != [key]:
        return failed("it does not list what was just written", _other_server())
    store.delete([key])
    if store.exists(key):
        return failed("an object is there after it was deleted", _other_server())
    return passed("written, read back, listed and deleted")


def multipart(bucket: Bucket) -> Result:
    """An object that is sent in parts comes back whole."""
    name, key = bucket.name("parts"), bucket.key("parts")
    data = secrets.token_bytes(PART_BYTES) + TEXT
    with translated(bucket.at, key):
        client, where = bucket.at.client, {"Bucket": bucket.at.bucket, "Key": name}
        upload = client.create_multipart_upload(**where)["UploadId"]
        try:
            pieces = (data[:PART_BYTES], data[PART_BYTES:])
            parts = [
                {
                    "PartNumber": number,
                    "ETag": client.upload_part(
                        **where, UploadId=upload, PartNumber=number, Body=piece
                    )["ETag"],
                }
                for number, piece in enumerate(pieces, start=1)
            ]
            client.complete_multipart_upload(
                **where, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            with suppress(BotoCoreError, ClientError):
                client.abort_multipart_upload(**where, UploadId=upload)
            raise
    if bucket.store.read(key) != data:
        return failed("an object sent in parts comes back otherwise", _other_server())
    return passed(f"two parts, {len(data) / 2**20:.0f} MiB")


def path_style(bucket: Bucket) -> Result:
    """The bucket may stand in the path, where no name has to be made for it."""
    sent: list[str] = []
    client, key = _client(bucket), bucket.key("path")
    client.meta.events.register(
        "before-send.s3.GetObject", lambda request, **_: sent.append(urlsplit(request.url).path)
    )
    bucket.store.write(key, TEXT)
    try:
        where = {"Bucket": bucket.at.bucket, "Key": bucket.name("path")}
        found = client.get_object(**where)["Body"].read()
    except (BotoCoreError, ClientError) as error:
        return failed(
            f"{place(bucket.at)} refuses {sent[-1] if sent else key} ({error})",
            "let the server take addresses with the bucket in the path",
        )
    if found != TEXT or not sent[-1].startswith(f"/{bucket.at.bucket}/"):
        return failed(f"{sent[-1]} gives other bytes than were written", _other_server())
    return passed(f"{place(bucket.at)}/{bucket.at.bucket}/...")


def checksums(bucket: Bucket) -> Result:
    """The checksums that boto3 and pyarrow add by themselves are taken."""
    client = _client(bucket)
    where = {"Bucket": bucket.at.bucket, "Key": bucket.name("boto3")}
    try:
        client.put_object(**where, Body=TEXT)
        found = client.get_object(**where, ChecksumMode="ENABLED")["Body"].read()
    except (BotoCoreError, ClientError) as error:
        return failed(f"it refuses boto3's default checksums ({error})", _without_checksums())
    key = bucket.key("pyarrow")
    with translated(bucket.at, key):
        filesystem = bucket.store.filesystem()
        with filesystem.open_output_stream(bucket.store.path(key)) as stream:
            stream.write(TEXT)
    if found != TEXT or bucket.store.read(key) != TEXT:
        return failed("what is written with checksums comes back otherwise", _without_checksums())
    return passed("boto3's and pyarrow's defaults")


def conditional_writes(bucket: Bucket) -> Result:
    """Of two writers one wins: If-None-Match and If-Match are obeyed."""
    store, key = bucket.store, bucket.key("condition")
    first = store.create(key, b"first")
    if first is None or store.create(key, b"second") is not None:
        return failed("it does not obey If-None-Match: *", _one_writer())
    second = store.replace(key, b"third", first)
    if second is None or store.replace(key, b"fourth", first) is not None:
        return failed("it does not obey If-Match", _one_writer())
    if store.read(key) != b"third":
        return failed("a refused write took place all the same", _one_writer())
    return passed("If-None-Match and If-Match")


def kept_metadata(bucket: Bucket) -> Result:
    """Content types and metadata are kept, in a gateway's volume as extended attributes."""
    key = bucket.key("metadata")
    where = {"Bucket": bucket.at.bucket, "Key": bucket.name("metadata")}
    with translated(bucket.at, key):
        client = bucket.at.client
        client.put_object(**where, Body=TEXT, Metadata=MARK, ContentType="text/x-doctor")
        found = client.head_object(**where)
    if found.get("Metadata") != MARK or found.get("ContentType") != "text/x-doctor":
        return failed(
            "content type and metadata of an object are lost",
            "the gateway's volume keeps no extended attributes: use another storage class, or the "
            "gateway's --sidecar, as docs/kubernetes.md says",
        )
    return passed("content type and metadata are kept")


def clock(bucket: Bucket) -> Result:
    """This machine's clock and the server's agree."""
    with translated(bucket.at):
        answer = bucket.at.client.head_bucket(Bucket=bucket.at.bucket)
    there = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    try:
        moment = parsedate_to_datetime(there)
    except (TypeError, ValueError):
        return failed(f"it gives no time ({there})", _other_server())
    skew = (datetime.now(UTC) - moment.astimezone(UTC)).total_seconds()
    if abs(skew) > MOST_SKEW_S:
        way = "ahead of" if skew > 0 else "behind"
        return failed(
            f"this machine's clock is {abs(skew):.0f} s {way} the store's",
            "set both by NTP: heartbeats and signatures carry the time",
        )
    return passed(f"within {max(1.0, abs(skew)):.0f} s of this machine's")


def _client(bucket: Bucket) -> Any:
    """A client with boto3's own defaults, but for the bucket in the path."""
    settings = Config(
        s3={"addressing_style": "path"},
        retries={"total_max_attempts": 2},
        proxies={} if is_loopback(bucket.at.endpoint) else None,
    )
    region = bucket.at.client.meta.region_name
    return boto3.client("s3", endpoint_url=bucket.at.endpoint, region_name=region, config=settings)


def _other_server() -> str:
    return "use another store: runs would lose data in this one"


def _one_writer() -> str:
    return "use another store: in this one two attempts of a run could both be in charge"


def _without_checksums() -> str:
    return f"set {WHEN_REQUIRED} for all that uses the store, runs too"


REACH = "store"
BUCKET_CHECKS: tuple[Check[Bucket], ...] = (
    Check(REACH, reach),
    Check("store: objects", objects, needs=REACH),
    Check("store: multipart", multipart, needs=REACH),
    Check("store: path style", path_style, needs=REACH),
    Check("store: checksums", checksums, needs="store: multipart"),  # pyarrow sends in parts
    Check("store: conditional writes", conditional_writes, needs=REACH),
    Check("store: metadata", kept_metadata, needs=REACH),
    Check("store: clock", clock, needs=REACH),
)
