"""Asks an S3 server what it does, with a few small objects.

Only what a server does counts; if it does not answer, is full or rejects the keys, the probe
raises.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, PaginationError

from cifarray.errors import StoreAwayError, StoreError, StoreFullError, StoreRefusedError
from cifarray.store.contract import TRAITS, Answer, Contract
from cifarray.store.keys import joined
from cifarray.store.layout import RESERVED
from cifarray.store.s3_connection import (
    DELETE_WAYS,
    PATH,
    SINGLY,
    VIRTUAL,
    Connection,
    delete_by,
)
from cifarray.store.s3_errors import (
    LOST_RACE,
    MISSING,
    error_code,
    is_about_the_request,
    is_denied,
    translated,
)

T = TypeVar("T")
TRIES = 3
"""At each question, whose requests are each repeated too; for longer than that the store waits."""
STYLE_DEADLINE_S = 3.0
"""How long a name that may not exist is looked up for the other style of addresses."""
TEXT, OTHER_TEXT = b"cifarray", b"yarrafic"
MARK, KIND = {"cifarray": "probe"}, "text/x-cifarray"
ABSENT, LOST = "absent", "the condition does not hold"


class Probe:
    """The questions, each with objects of its own below one folder that no listing shows."""

    def __init__(self, at: Connection) -> None:
        self._at = at
        self._folder = joined(at.prefix, f"{RESERVED}probe/{secrets.token_hex(6)}")
        self._written: list[str] = []
        self._server = ""
        self._deletes = False

    def contract(self) -> Contract:
        """The answers to all questions."""
        asked: dict[str, Callable[[], Answer]] = {
            "checksums": self._checksums,
            "create": self._create,
            "replace": self._replace,
            "objects": self._objects,
            "listing": self._listing,
            "multipart": self._multipart,
            "copy": self._copy,
            "metadata": self._metadata,
            "delete": self._delete,
            "delete_many": self._delete_many,
            "addressing": self._addressing,
        }
        answers: dict[str, Answer] = {}
        try:
            for trait, ask in asked.items():
                answers[trait] = _tried_again(ask)
        finally:
            self._clear(answers.get("delete_many", Answer(SINGLY)).value)
        return Contract(
            self._at.uri,
            self._at.endpoint,
            self._server,
            datetime.now(UTC).isoformat(timespec="seconds"),
            {trait: answers[trait] for trait in TRAITS},
        )

    def _checksums(self) -> Answer:
        plain, said = self._put(self._name(), TEXT)
        checked, said_of_checksums = self._put(self._name(), TEXT, ChecksumAlgorithm="CRC32")
        if plain:
            return Answer("taken") if checked else Answer("refused", said_of_checksums)
        if not checked:
            raise StoreRefusedError(
                f"{self._at.endpoint or 'AWS S3'} does not store an object for {self._at.uri}: "
                f"{said}; use another store"
            )
        self._at.send_checksums()
        return Answer("required", said)

    def _create(self) -> Answer:
        name = self._name()
        first, said = self._put(name, TEXT, IfNoneMatch="*")
        if said == LOST:
            raise StoreAwayError("the answer to the first try of a new object was lost")
        if not first:
            return Answer("refused", said)
        second, said = self._put(name, OTHER_TEXT, IfNoneMatch="*")
        if second or self._read(name) != TEXT:
            return Answer("ignored")
        return Answer("obeyed") if said == LOST else Answer("refused", said)

    def _replace(self) -> Answer:
        name = self._name()
        self._put(name, TEXT)
        tag = self._tag(name)
        second, said = self._put(name, OTHER_TEXT, IfMatch=tag)
        if not second and self._read(name) == OTHER_TEXT:
            raise StoreAwayError("the answer to the first try of a replacement was lost")
        if not second:
            return Answer("refused", "the object's own tag" if said == LOST else said)
        third, said = self._put(name, TEXT, IfMatch=tag)
        if third or self._read(name) != OTHER_TEXT:
            return Answer("ignored")
        if said != LOST:
            return Answer("refused", said)
        absent, _ = self._put(self._name(), TEXT, IfMatch=tag)
        return Answer("of what is there" if absent else "obeyed")

    def _objects(self) -> Answer:
        name = self._name()
        for text in (TEXT, OTHER_TEXT):
            self._put(name, text)
            if self._read(name) != text:
                return Answer("wrong")
        if self._read(name, Range="bytes=2-4") != OTHER_TEXT[2:5]:
            return Answer("wrong", "a range of an object has different bytes")
        return Answer("honest")

    def _listing(self) -> Answer:
        folder = self._name()
        names = [f"{folder}/{name}" for name in ("a", "b/c", "d")]
        for name in names:
            self._put(name, TEXT)
        try:
            pages, _ = self._listed(folder, MaxKeys=1)
            flat, folders = self._listed(folder, Delimiter="/")
            whole, _ = self._listed(folder)
        except StoreRefusedError as error:
            if isinstance(error.__cause__, PaginationError):
                return Answer("wrong", "a requested page repeats the page before")
            return Answer("refused", _refusal_of_request(error))
        if not set(names) <= set(whole):
            return Answer("late")
        if pages != names or (flat, folders) != ([names[0], names[2]], [f"{folder}/b/"]):
            return Answer("wrong")
        with suppress(StoreRefusedError):  # the question about deletes reports that
            self._ask("delete_object", Key=names[0])
            if self._read(names[0]) is None and names[0] in self._listed(folder)[0]:
                return Answer("late", "a deleted object is listed")
        return Answer("honest")

    def _listed(self, folder: str, **options: Any) -> tuple[list[str], list[str]]:
        """Names and folders directly below `folder`."""
        client = self._at.client
        pages = client.get_paginator("list_objects_v2").paginate
        names: list[str] = []
        folders: list[str] = []
        limit = {"PaginationConfig": {"MaxItems": 100}}  # whatever the server claims
        with translated(self._at):
            for page in pages(Bucket=self._at.bucket, Prefix=f"{folder}/", **options, **limit):
                names += [item["Key"] for item in page.get("Contents", ())]
                folders += [item["Prefix"] for item in page.get("CommonPrefixes", ())]
        return names, folders

    def _multipart(self) -> Answer:
        name = self._name()
        self._written.append(name)
        begun, said = self._ask("create_multipart_upload", Key=name, denied_too=True)
        if not begun:
            return Answer("refused", said)
        where = {"Key": name, "UploadId": begun["UploadId"]}
        part, said = self._ask("upload_part", **where, PartNumber=1, Body=TEXT)
        if part:
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            done, said = self._ask("complete_multipart_upload", **where, MultipartUpload=parts)
            if done:
                whole = self._read(name) == TEXT
                return Answer("taken") if whole else Answer("refused", "it loses the parts")
        with suppress(StoreError):
            self._ask("abort_multipart_upload", **where)
        return Answer("refused", said)

    def _copy(self) -> Answer:
        source, target = self._name(), self._name()
        self._put(source, TEXT)
        self._written.append(target)
        origin = {"Bucket": self._at.bucket, "Key": source}
        copied, said = self._ask("copy_object", Key=target, CopySource=origin, denied_too=True)
        if copied and self._read(target) == TEXT:
            return Answer("done")
        return Answer("refused", said or "the copy has different bytes")

    def _metadata(self) -> Answer:
        name = self._name()
        self._put(name, TEXT, Metadata=MARK, ContentType=KIND)
        found, _ = self._ask("head_object", Key=name)
        same = found and found.get("Metadata") == MARK and found.get("ContentType") == KIND
        return Answer("kept" if same else "lost")

    def _delete(self) -> Answer:
        name = self._name()
        self._put(name, TEXT)
        done, said = self._ask("delete_object", Key=name, denied_too=True)
        if not done:
            return Answer("refused", said)
        self._deletes = self._read(name) is None
        return Answer("done" if self._deletes else "ignored")

    def _delete_many(self) -> Answer:
        if not self._deletes:
            return Answer("unknown")
        said = ""
        for way in DELETE_WAYS:
            names = [self._name(), self._name()]
            for name in names:
                self._put(name, TEXT)
            try:
                with translated(self._at):
                    kept_back = delete_by(way, self._at.client, self._at.bucket, names)
            except StoreRefusedError as error:
                said = said or _refusal_of_request(error)
                continue
            if not kept_back and all(self._read(name) is None for name in names):
                return Answer(way, said)
        return Answer(SINGLY, said)

    def _addressing(self) -> Answer:
        used = {PATH} if self._at.style == PATH else {VIRTUAL}
        other = VIRTUAL if used == {PATH} else PATH
        if self._at.takes(other, STYLE_DEADLINE_S):
            return Answer("both")
        return Answer("path" if used == {PATH} else "virtual")

    def _name(self) -> str:
        """A name that nobody has used."""
        return f"{self._folder}/{secrets.token_hex(6)}"

    def _put(self, name: str, data: bytes, **options: Any) -> tuple[Any, str]:
        self._written.append(name)
        return self._ask("put_object", Key=name, Body=data, **options)

    def _read(self, name: str, **options: Any) -> bytes | None:
        """The object's bytes; None if it is absent."""
        found, said = self._ask("get_object", Key=name, **options)
        if not found:
            return None if said == ABSENT else b""
        with translated(self._at):
            data: bytes = found["Body"].read()
        return data

    def _tag(self, name: str) -> str:
        found, _ = self._ask("head_object", Key=name)
        return str(found["ETag"]) if found else "absent"

    def _ask(
        self, operation: str, *, denied_too: bool = False, **arguments: Any
    ) -> tuple[Any, str]:
        """The server's answer, or None and its words where it refuses such a request.

        Raises: StoreError if it is away or full, or refuses these credentials.
        """
        with translated(self._at):
            try:
                call = getattr(self._at.client, operation)
                answer = call(Bucket=self._at.bucket, **arguments)
            except ClientError as error:
                if error_code(error) in MISSING and "Key" in arguments:
                    return None, ABSENT
                if error_code(error) in LOST_RACE:
                    return None, LOST
                if not is_about_the_request(error) and not (denied_too and is_denied(error)):
                    raise
                return None, _words(error)
        self._server = server_name(answer) or self._server
        return answer, ""

    def _clear(self, way: str) -> None:
        """Remove what was written, in the way that works."""
        names = list(dict.fromkeys(self._written))
        with suppress(ClientError, BotoCoreError):  # the question about deletes reports that
            delete_by(
                way if way in DELETE_WAYS else SINGLY, self._at.client, self._at.bucket, names
            )


def _tried_again(ask: Callable[[], T]) -> T:
    """The answer, where an answer was lost or cut on its way."""
    for tries_left in reversed(range(TRIES)):
        try:
            return ask()
        except StoreFullError:
            raise
        except StoreAwayError:
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _refusal_of_request(error: StoreRefusedError) -> str:
    """The server's words. Raises: the error itself if something else was refused."""
    cause = error.__cause__
    if not isinstance(cause, ClientError) or not is_about_the_request(cause):
        raise error
    return _words(cause)


def _words(error: ClientError) -> str:
    """The status and the code of an answer."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    code = error_code(error)
    return code if str(status) == code else f"{status} {code}"


def server_name(answer: Any) -> str:
    """What the server calls itself."""
    return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", ""))[:100]
