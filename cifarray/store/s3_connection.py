"""How a bucket is reached: address, credentials, time limits, and the one client for all of it."""

import functools
import os
import random
import re
import threading
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import ConnectionError, HTTPClientError

from cifarray.errors import StoreAddressError, StoreAwayError
from cifarray.proxies import is_loopback
from cifarray.store.keys import checked_prefix, joined
from cifarray.store.s3_errors import BUSY, no_answer, translated

CHECK_CONNECT_S, CHECK_READ_S, CHECK_ATTEMPTS = 2, 4, 2
CHECK_DEADLINE_S = 14.0
"""Bounds what those three do not: name look-ups, hosts with many addresses, credential servers."""
CONNECT_S, READ_S, ATTEMPTS = 5, 60, 5
"""For work: so many attempts at each request; for longer than that, `PatientStore` waits."""
LONGEST_PAUSE_S = 4.0
JITTER = random.Random()
"""Of its own: botocore's would move the random numbers that a training in this process draws."""


class Connection:
    """One bucket at one endpoint, with credentials from the standard AWS chain; lazy."""

    def __init__(self, uri: str, endpoint: str | None) -> None:
        self.bucket, self.prefix = _bucket_and_prefix(uri)
        self.uri = f"s3://{joined(self.bucket, self.prefix).rstrip('/')}"
        self.endpoint = _checked_endpoint(endpoint or _endpoint_of_environment())
        self.region: str | None = None
        self._lock = threading.RLock()
        self._session: Any = None
        self._working_client: Any = None

    def check(self) -> None:
        """List one object. Raises: StoreError, within 15 s, that says what to do."""
        outcome: list[BaseException] = []

        def probe() -> None:
            try:
                self._probe()
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=probe, daemon=True, name="cifarray store check")
        thread.start()
        thread.join(CHECK_DEADLINE_S)
        if thread.is_alive():
            raise StoreAwayError(no_answer(self))
        if outcome:
            raise outcome[0]

    def _probe(self) -> None:
        with translated(self):
            client = self._new_client(CHECK_CONNECT_S, CHECK_READ_S, CHECK_ATTEMPTS)
            prefix = f"{self.prefix}/" if self.prefix else ""
            answer = client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
        if not {"IsTruncated", "Name", "KeyCount"} & answer.keys():
            raise StoreAwayError(no_answer(self, "what answers there is no S3 server"))
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        self.region = headers.get("x-amz-bucket-region") or client.meta.region_name

    @property
    def client(self) -> Any:
        """The client for all work; the first use checks the store, so that nothing waits long."""
        with self._lock:
            if self._working_client is None:
                self.check()
                self._working_client = self._new_client(CONNECT_S, READ_S, ATTEMPTS)
            return self._working_client

    def _new_client(self, connect_s: int, read_s: int, attempts: int) -> Any:
        if self._session is None:
            self._session = _new_session()
        config = Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": 1},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=32,
            proxies={} if is_loopback(self.endpoint) else None,
        )
        # Every other AWS client reads this variable; boto3 reads AWS_DEFAULT_REGION alone.
        asked = os.environ.get("AWS_REGION") or self._session.region_name
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

    Called by botocore after each attempt, in place of its own rule.
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


def _new_session() -> Any:
    """A session that looks for credentials anew."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _api_models())
    return boto3.session.Session(botocore_session=session)


def _bucket_and_prefix(uri: str) -> tuple[str, str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}", bucket):
        shown = bucket if "@" not in bucket and ":" not in bucket else "(withheld)"
        raise StoreAddressError(
            f"cannot open a store in bucket {shown!r}; give s3://bucket/prefix, where a bucket's "
            "name has 3 to 63 letters, digits, '.' and '-', and credentials stand elsewhere"
        )
    return bucket, checked_prefix(prefix)


def _endpoint_of_environment() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _checked_endpoint(endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    try:
        at = urlsplit(endpoint)
        sound = (
            at.scheme in ("http", "https")
            and bool(at.hostname)
            and (at.port is None or at.port > 0)
            and at.path in ("", "/")
            and not (at.query or at.fragment or "@" in at.netloc)
        )
    except ValueError:
        sound = False
    if not sound:
        shown = endpoint if "@" not in endpoint and "?" not in endpoint else "(withheld)"
        raise StoreAddressError(
            f"cannot use the endpoint {shown!r}; give http://host:port or https://host"
        )
    return endpoint.rstrip("/")
