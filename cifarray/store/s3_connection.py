"""Connects to a bucket: credentials, time limits, the one client, and how its server deletes."""

import base64
import functools
import hashlib
import ipaddress
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from cifarray.errors import StoreAwayError, StoreError, StoreRefusedError
from cifarray.proxies import is_loopback
from cifarray.store.address import (
    STANDARD_CHAIN,
    Access,
    bucket_and_prefix,
    checked_endpoint,
    endpoint_of_environment,
    region_of_environment,
)
from cifarray.store.keys import is_index, joined
from cifarray.store.s3_errors import BUSY, is_of_its_own, no_answer, translated
from cifarray.timers import JITTER

CHECK_CONNECT_S, CHECK_READ_S, CHECK_ATTEMPTS = 2, 4, 2
CHECK_DEADLINE_S = 14.0
"""Bounds what those three do not: name look-ups, hosts with many addresses, credential servers."""
CONNECT_S, READ_S, ATTEMPTS = 5, 60, 5
"""For work: so many attempts at each request; for longer than that, `PatientStore` waits."""
LONGEST_PAUSE_S = 4.0
PATH, VIRTUAL, AUTO = "path", "virtual", "auto"
"""Where a bucket's name goes, in botocore's terms; AUTO is AWS's own rule."""
BATCH, WITH_MD5, SINGLY = "batch", "content-md5", "one by one"
DELETE_WAYS = (BATCH, WITH_MD5, SINGLY)
"""How a server deletes several objects, as the contract calls it, the cheapest first."""
DELETE_THREADS = 8
MD5_EVENT, MD5_MARK = "before-call.s3.DeleteObjects", "cifarray-content-md5"
AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn")


class Connection:
    """One bucket at one endpoint, with the keys of `access` or the standard AWS chain's; lazy."""

    def __init__(self, uri: str, endpoint: str | None, access: Access = STANDARD_CHAIN) -> None:
        self.bucket, self.prefix = bucket_and_prefix(uri)
        self.uri = f"s3://{joined(self.bucket, self.prefix).rstrip('/')}"
        self.endpoint = checked_endpoint(endpoint or endpoint_of_environment())
        self.access = access
        self.region: str | None = None
        """The bucket's, once the server has said so."""
        self.style = AUTO if self.is_aws else PATH
        self.checksums = "when_required"
        self._lock = threading.RLock()
        self._session: Any = None
        self._working_client: Any = None

    @property
    def host(self) -> str:
        """The endpoint's host; empty for AWS S3 itself."""
        return urlsplit(self.endpoint or "").hostname or ""

    @property
    def is_aws(self) -> bool:
        """Whether it is AWS S3 itself, by its own address or by one that was given."""
        return not self.endpoint or self.host.endswith(AWS_HOSTS)

    def check(self) -> None:
        """List one object. Raises: StoreError, within 15 s, that says what to do."""
        self._within(CHECK_DEADLINE_S, self._find_style)

    def _within(self, deadline_s: float, ask: Callable[[], object]) -> None:
        """Ask, and give up after this long, whatever it waits for."""
        outcome: list[BaseException] = []

        def run() -> None:
            try:
                ask()
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True, name="cifarray store check")
        thread.start()
        thread.join(deadline_s)
        if thread.is_alive():
            raise StoreAwayError(no_answer(self))
        if outcome:
            raise outcome[0]

    def _find_style(self) -> None:
        """List one object with the bucket in the path, or in the host name where that fails."""
        try:
            self.region = self._list_one(self.style)
        except StoreError as error:
            if self.style != PATH or is_address(self.host) or not _may_be_the_style(error):
                raise
            try:
                self.region = self._list_one(VIRTUAL)
            except StoreError as of_host_name:
                told = of_host_name if _is_the_style(error, of_host_name) else error
                raise told from told.__cause__
            self.style = VIRTUAL

    def takes(self, style: str, deadline_s: float) -> bool:
        """Whether the server takes the bucket's name in this place, as far as time tells."""
        if style == VIRTUAL and is_address(self.host):
            return False
        try:
            self._within(deadline_s, lambda: self._list_one(style))
        except StoreError:
            return False
        return True

    def _list_one(self, style: str) -> str:
        """List one object; the bucket's region."""
        with translated(self):
            client = self._new_client(CHECK_CONNECT_S, CHECK_READ_S, CHECK_ATTEMPTS, style)
            prefix = f"{self.prefix}/" if self.prefix else ""
            answer = client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
        if not {"IsTruncated", "Name", "KeyCount"} & answer.keys():
            raise NoS3ServerError(no_answer(self, "the server there is not an S3 server"))
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        region: str = headers.get("x-amz-bucket-region") or client.meta.region_name
        return region

    @property
    def client(self) -> Any:
        """The client for all work; the first use checks the store, so that nothing waits long."""
        with self._lock:
            if self._working_client is None:
                self.check()
                self._working_client = self._new_client(CONNECT_S, READ_S, ATTEMPTS, self.style)
            return self._working_client

    def send_checksums(self) -> None:
        """From now on send a checksum with every object, for a server that requires it."""
        with self._lock:
            if self.checksums != "when_supported":
                self.checksums, self._working_client = "when_supported", None

    def _new_client(self, connect_s: int, read_s: int, attempts: int, style: str) -> Any:
        if self._session is None:
            self._session = _new_session(self.access)
        config = Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": 1},
            s3={"addressing_style": style},
            request_checksum_calculation=self.checksums,
            response_checksum_validation="when_required",
            max_pool_connections=32,
            proxies={} if is_loopback(self.endpoint) else None,
        )
        # Every other AWS client reads AWS_REGION; boto3 reads AWS_DEFAULT_REGION alone.
        asked = self.access.region or region_of_environment() or self._session.region_name
        region = self.region or asked or "us-east-1"
        client = self._session.client(
            "s3", endpoint_url=self.endpoint, region_name=region, config=config
        )
        client.meta.events.register("needs-retry.s3", functools.partial(_pause_s, attempts))
        return client


def _pause_s(
    most: int, attempts: int, response: Any = None, caught_exception: Any = None, **_: Any
) -> float | None:
    """Seconds until a request is sent again; None if it is not.

    Called by botocore after each attempt, in place of its own rule, which draws from the global
    random numbers.
    """
    if attempts >= most:
        return None
    if caught_exception is not None:
        passing = isinstance(caught_exception, (HTTPClientError, ConnectionError))
    else:
        status, parsed = (response[0].status_code, response[1]) if response else (0, {})
        code = parsed.get("Error", {}).get("Code")
        passing = status in (429, 500, 502, 503, 504) or code in BUSY
    return JITTER.uniform(0.0, min(LONGEST_PAUSE_S, 0.1 * 2**attempts)) if passing else None


@functools.cache
def _api_models() -> Any:
    """The description of S3 that boto3 ships, which takes long to read, once for all stores."""
    return botocore.loaders.create_loader()


def _new_session(access: Access) -> Any:
    """A session with these keys; without any it looks for credentials again."""
    # AWS_PROFILE is ignored if keys are given.
    no_profile = {"profile": (None, None, None, None)} if access.key_id else None
    session = botocore.session.get_session(no_profile)
    session.register_component("data_loader", _api_models())
    return boto3.session.Session(
        aws_access_key_id=access.key_id,
        aws_secret_access_key=access.secret_key,
        botocore_session=session,
    )


def delete_by(way: str, client: Any, bucket: str, names: Sequence[str]) -> list[dict[str, str]]:
    """Delete these objects in this way; what the server says of those that it keeps."""
    if way == SINGLY:
        _delete_singly(client, bucket, names)
        return []
    if way == WITH_MD5:
        client.meta.events.register(MD5_EVENT, _add_md5, unique_id=MD5_MARK)
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
    with ThreadPoolExecutor(DELETE_THREADS) as pool:
        list(pool.map(delete, (name for name in names if not is_index(name))))


def _add_md5(params: dict[str, Any], **_: Any) -> None:
    """Send Content-MD5, as clients did before 2025, in place of a newer checksum."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
    params["context"].pop("checksum", None)


class NoS3ServerError(StoreAwayError):
    """Something answers at the endpoint, and not as an S3 server does."""


def is_address(host: str) -> bool:
    """Whether a host is given by its number, before which no bucket's name can stand."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_the_style(error: StoreError, of_host_name: StoreError) -> bool:
    """Whether the bucket's place was refused, so that the answer to the other place counts."""
    causes = error.__cause__, of_host_name.__cause__
    return all(isinstance(each, ClientError) for each in causes) and is_of_its_own(causes[0])


def _may_be_the_style(error: StoreError) -> bool:
    """Whether a server may have refused the bucket's place rather than the request.

    They say so by many codes: SecondLevelDomainForbidden, PathStyleDomainForbidden, NoSuchBucket.
    """
    cause = error.__cause__
    refused = isinstance(error, StoreRefusedError)
    return isinstance(error, NoS3ServerError) or (
        refused and isinstance(cause, ClientError | RecursionError)
    )
