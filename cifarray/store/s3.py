"""A store in a bucket of S3 or of any server that speaks its protocol."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from cifarray.digests import content_sha256, file_sha256
from cifarray.errors import KeyMissingError, StoreAwayError, StoreRefusedError
from cifarray.store.address import STANDARD_CHAIN, Access
from cifarray.store.base import (
    TRANSFER_TRIES,
    Entries,
    Entry,
    Keys,
    ObjectChangedError,
    Store,
    TransferCutError,
    readable,
)
from cifarray.store.contract import Contract
from cifarray.store.keys import checked_key, checked_prefix, index_last, is_index, is_key, joined
from cifarray.store.s3_connection import BATCH, DELETE_WAYS, SINGLY, Connection, delete_by
from cifarray.store.s3_contract import agreed, kept
from cifarray.store.s3_errors import LOST_RACE, error_code, is_about_the_request, translated

CHUNK_BYTES = 1 << 20
COPY_THREADS = 8
DELETE_BATCH = 1000
PART_BYTES = 8 << 20
LEAST_MULTIPART_BYTES = 2 * PART_BYTES
WHOLE = TransferConfig(multipart_threshold=5 << 30)
"""Servers accept and copy objects below 5 GiB in one request."""
IN_PARTS = TransferConfig(
    multipart_threshold=LEAST_MULTIPART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4
)


class S3Store(Store):
    """Objects below one prefix of a bucket."""

    def __init__(
        self, uri: str, endpoint: str | None = None, access: Access = STANDARD_CHAIN
    ) -> None:
        self._at = Connection(uri, endpoint, access)
        self.uri, self.endpoint, self.access = self._at.uri, self._at.endpoint, access
        self._contract: Contract | None = None
        self._delete_way: str | None = None
        """The last that worked; one that the server refuses is not taken again."""

    def check(self) -> None:
        """List one object. Raises: StoreError, within 15 s, that says what to do."""
        self._at.check()

    def check_writes(self) -> None:
        """Probe the server's contract once for all processes.

        Raises: StoreRefusedError, in one sentence, if runs are not safe on it; StoreError.
        """
        self._writable()

    def _writable(self) -> Contract:
        """The server's contract; every write asks for it first."""
        if self._contract is None:
            self._contract = agreed(self._at)
        return self._contract

    def path(self, key: str = "") -> str:
        """bucket/prefix/key."""
        return joined(self._at.bucket, joined(self._at.prefix, checked_prefix(key))).rstrip("/")

    def exists(self, key: str) -> bool:
        """Whether the bucket has an object under this key."""
        try:
            self.version(key)
        except KeyMissingError:
            return False
        return True

    def size(self, key: str) -> int:
        """Bytes of the object. Raises: KeyMissingError."""
        return self.version(key)[0]

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """The object and its ETag. Raises: KeyMissingError."""
        name = self._name(key)
        with translated(self._at, key):
            for tries_left in reversed(range(TRANSFER_TRIES)):
                answer = self._at.client.get_object(Bucket=self._at.bucket, Key=name)
                try:
                    return answer["Body"].read(), answer["ETag"]
                except (BotoCoreError, OSError):  # cut half-way, which boto3 does not try again
                    if not tries_left:
                        raise
        raise AssertionError("the last try returns or raises")

    def write(self, key: str, data: bytes) -> None:
        """Put the object, whatever was there, and see that it has arrived."""
        name = self._name(key)
        self._writable()
        with translated(self._at, key):
            answer = self._at.client.put_object(Bucket=self._at.bucket, Key=name, Body=data)
        if answer.get("ETag") != etag_of([data]):
            self._compare(key, len(data), content_sha256(data))

    def create(self, key: str, data: bytes) -> str | None:
        """Put with If-None-Match: *."""
        return self._put_if(key, data, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, tag: str) -> str | None:
        """Put with If-Match."""
        lax = self._writable().value("replace") == "of what is there"
        if lax and not self.exists(key):
            return None
        return self._put_if(key, data, IfMatch=tag)

    def _put_if(self, key: str, data: bytes, **condition: str) -> str | None:
        name = self._name(key)
        self._writable()
        with translated(self._at, key):
            client = self._at.client
            try:
                tag: str = client.put_object(
                    Bucket=self._at.bucket, Key=name, Body=data, **condition
                )["ETag"]
                return tag
            except ClientError as error:
                if error_code(error) not in LOST_RACE:
                    raise
                if not error.response["ResponseMetadata"].get("RetryAttempts"):
                    return None
        return self._tag_if_ours(key, data)

    def _tag_if_ours(self, key: str, data: bytes) -> str | None:
        """A repeated put may have lost to its own first try, whose answer never came."""
        try:
            stored, tag = self.read_tagged(key)
        except KeyMissingError:
            return None
        return tag if stored == data else None

    def list(self, prefix: str = "") -> Entries:
        """Every object below `prefix`, sorted; names that no store could take are left out."""
        found = []
        root = self._folder("")
        for name, item in self._pages(prefix, "Contents", "Key"):
            key = name.removeprefix(root)
            if is_key(key):
                found.append(Entry(key, item["Size"], item["LastModified"].astimezone(UTC)))
        return sorted(found, key=lambda entry: entry.key)

    def folders(self, prefix: str = "") -> Keys:
        """Names of the common prefixes below `prefix`."""
        folder = self._folder(prefix)
        pages = self._pages(prefix, "CommonPrefixes", "Prefix", Delimiter="/")
        found = (name.removeprefix(folder).removesuffix("/") for name, _ in pages)
        return sorted(name for name in found if is_key(name) and "/" not in name)

    def _pages(
        self, prefix: str, field: str, name_field: str, **options: str
    ) -> Iterator[tuple[str, Any]]:
        """Names and entries of a listing; what a strange server adds from elsewhere is left out."""
        folder = self._folder(prefix)
        with translated(self._at, prefix):
            pages = self._at.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._at.bucket, Prefix=folder, **options):
                for item in page.get(field, ()):
                    if item[name_field].startswith(folder):
                        yield item[name_field], item

    def delete(self, keys: Iterable[str]) -> None:
        """Delete these objects, a thousand a request."""
        self._delete_names(self._name(key) for key in keys)

    def delete_folder(self, prefix: str) -> None:
        """Delete everything below `prefix`, what makes it valid first, folder markers too."""
        names = [name for name, _ in self._pages(prefix, "Contents", "Key")]
        self._delete_names(reversed(index_last(names)))

    def _delete_names(self, names: Iterable[str]) -> None:
        wanted = list(names)
        if (
            self._delete_way is None and wanted
        ):  # a store that is full or unsafe can still be emptied
            contract = self._contract or kept(self._at)
            known = contract.value("delete_many") if contract else BATCH
            self._delete_way = known if known in DELETE_WAYS else BATCH
        for start in range(0, len(wanted), DELETE_BATCH):
            with translated(self._at):
                left = self._delete_batch(wanted[start : start + DELETE_BATCH])
            for refused in left:
                raise StoreRefusedError(
                    f"cannot delete {refused['Key']} in {self.uri}: "
                    f"{refused.get('Message') or refused.get('Code')}"
                )

    def _delete_batch(self, names: Sequence[str]) -> Sequence[dict[str, str]]:
        """Delete these objects in the first way that works; what the server says of those it keeps.

        Raises: ClientError.
        """
        first: ClientError | None = None
        for way in DELETE_WAYS[DELETE_WAYS.index(self._delete_way or BATCH) :]:
            try:
                refused = delete_by(way, self._at.client, self._at.bucket, names)
            except ClientError as error:
                first = first or error
                if way == SINGLY or not is_about_the_request(error):
                    raise first from None
                continue
            self._delete_way = way
            return refused
        raise AssertionError("the last way returns or raises")

    def upload(self, path: Path, key: str) -> None:
        """Send a local file, in parts where it is large, and see that it has arrived."""
        name, size = self._name(key), readable(path).stat().st_size
        transfer = IN_PARTS if self._writable().value("multipart") == "taken" else WHOLE
        with translated(self._at, key):
            self._at.client.upload_file(str(path), self._at.bucket, name, Config=transfer)
        stored_bytes, etag = self.version(key)
        with path.open("rb") as file:
            if size >= transfer.multipart_threshold:
                expected = etag_of(iter(lambda: file.read(PART_BYTES), b""))
            else:
                expected = f'"{hashlib.file_digest(file, _md5).hexdigest()}"'
            if stored_bytes == size and etag == expected:
                return
        self._compare(key, size, file_sha256(path))

    def _compare(self, key: str, size_bytes: int, sha256: str) -> None:
        """Read what was written, where its ETag is no MD5 or another one, and compare.

        Raises: StoreAwayError if the bytes are others, which another attempt may fix.
        """
        try:
            stored_bytes = self.version(key)[0]
            whole = stored_bytes == size_bytes and self.sha256(key) == sha256
        except KeyMissingError:
            stored_bytes, whole = 0, False
        if not whole:
            raise StoreAwayError(
                f"{key} did not arrive intact in {self.uri}: {stored_bytes} of {size_bytes} "
                "bytes are there, or they differ; check the server's disk and log"
            )

    def copy_folder(self, source_prefix: str, target_prefix: str) -> None:
        """Copy within the server, what makes the folder valid last."""
        source, target = checked_prefix(source_prefix), checked_prefix(target_prefix)
        keys = index_last([entry.key for entry in self.list(source)])
        parts = sum(not is_index(key) for key in keys)

        def copy(key: str) -> None:
            self._copy(key, joined(target, key[len(source) :].lstrip("/")))

        with ThreadPoolExecutor(COPY_THREADS) as pool:
            list(pool.map(copy, keys[:parts]))
            list(pool.map(copy, keys[parts:]))

    def _copy(self, source: str, target: str) -> None:
        origin = {"Bucket": self._at.bucket, "Key": self._name(source)}
        if self._writable().value("copy") != "done":
            self._copy_through_here(source, target)
            return
        with translated(self._at, source):
            self._at.client.copy(origin, self._at.bucket, self._name(target), Config=WHOLE)

    def _copy_through_here(self, source: str, target: str) -> None:
        """Read and write, for a server that copies nothing by itself."""
        with TemporaryDirectory(prefix="cifarray-") as folder:
            path = Path(folder, "object")
            self.download(source, path)
            self.upload(path, target)

    def version(self, key: str) -> tuple[int, str]:
        name = self._name(key)
        with translated(self._at, key):
            answer = self._at.client.head_object(Bucket=self._at.bucket, Key=name)
        return answer["ContentLength"], answer["ETag"]

    def read_range(self, key: str, start: int, stop: int, version: str) -> bytes:
        """Bytes `start` to `stop` of one version of the object. Raises: ObjectChangedError."""
        name, span = self._name(key), f"bytes={start}-{stop - 1}"
        with translated(self._at, key):
            for tries_left in reversed(range(TRANSFER_TRIES)):
                answer = self._get(name, key, version, Range=span)
                try:
                    return bytes(answer["Body"].read())
                except (BotoCoreError, OSError):  # cut half-way, which boto3 does not try again
                    if not tries_left:
                        raise
        raise AssertionError("the last try returns or raises")

    def _get(self, name: str, key: str, version: str, **span: str) -> Any:
        try:
            return self._at.client.get_object(
                Bucket=self._at.bucket, Key=name, IfMatch=version, **span
            )
        except ClientError as error:
            if error_code(error) not in ("PreconditionFailed", "412"):
                raise
            raise ObjectChangedError(key) from error

    def chunks(self, key: str, offset: int, version: str) -> Iterator[bytes]:
        name = self._name(key)
        span = {"Range": f"bytes={offset}-"} if offset else {}
        with translated(self._at, key):
            answer = self._get(name, key, version, **span)
        try:
            yield from answer["Body"].iter_chunks(CHUNK_BYTES)
        except (BotoCoreError, OSError) as error:
            raise TransferCutError(str(error)) from error

    def _name(self, key: str) -> str:
        return joined(self._at.prefix, checked_key(key))

    def _folder(self, prefix: str) -> str:
        folder = joined(self._at.prefix, checked_prefix(prefix)).rstrip("/")
        return f"{folder}/" if folder else ""


def etag_of(parts: Iterable[bytes]) -> str:
    """The ETag that S3 gives to these parts: the MD5 of one, of several that of their MD5s.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html; objects that a key service
    encrypts have others.
    """
    digests = [hashlib.md5(part, usedforsecurity=False).digest() for part in parts]
    if len(digests) == 1:
        return f'"{digests[0].hex()}"'
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f'"{whole}-{len(digests)}"'


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
