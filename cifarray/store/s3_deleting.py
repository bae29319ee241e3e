"""Deleting objects in the way that a server has: by lists, by lists with Content-MD5, singly."""

import base64
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError

from cifarray.store.contract import Contract
from cifarray.store.keys import is_index
from cifarray.store.s3_errors import is_about_the_request

BATCH, WITH_MD5, SINGLY = "batch", "content-md5", "one by one"
WAYS = (BATCH, WITH_MD5, SINGLY)
"""As the contract calls them, the cheapest first."""
THREADS = 8
EVENT, MARK = "before-call.s3.DeleteObjects", "cifarray-content-md5"


class Deleter:
    """Deletes lists of objects of one bucket; a way that the server refuses is not taken again."""

    def __init__(self, bucket: str, contract: Contract | None) -> None:
        self._bucket = bucket
        known = contract.value("delete_many") if contract else BATCH
        self._way = known if known in WAYS else BATCH

    def delete(self, client: Any, names: Sequence[str]) -> list[dict[str, str]]:
        """Delete at most a thousand objects; what the server says of those that it keeps.

        Raises: ClientError.
        """
        first: ClientError | None = None
        for way in WAYS[WAYS.index(self._way) :]:
            try:
                refused = delete_by(way, client, self._bucket, names)
            except ClientError as error:
                first = first or error
                if way == SINGLY or not is_about_the_request(error):
                    raise first from None
                continue
            self._way = way
            return refused
        raise AssertionError("the last way returns or raises")


def delete_by(way: str, client: Any, bucket: str, names: Sequence[str]) -> list[dict[str, str]]:
    """Delete these objects in this way; what the server says of those that it keeps."""
    if way == SINGLY:
        _delete_singly(client, bucket, names)
        return []
    if way == WITH_MD5:
        client.meta.events.register(EVENT, _add_md5, unique_id=MARK)
    request = {"Objects": [{"Key": name} for name in names], "Quiet": True}
    refused: list[dict[str, str]] = client.delete_objects(Bucket=bucket, Delete=request).get(
        "Errors", []
    )
    return refused


def _delete_singly(client: Any, bucket: str, names: Sequence[str]) -> None:
    """One request each; what makes a folder valid goes before the rest."""

    def delete(name: str) -> None:
        client.delete_object(Bucket=bucket, Key=name)

    for name in filter(is_index, names):
        delete(name)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(delete, (name for name in names if not is_index(name))))


def _add_md5(params: dict[str, Any], **_: Any) -> None:
    """Send Content-MD5, as clients did before 2025, in place of a newer checksum."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    params["context"].pop("checksum", None)
