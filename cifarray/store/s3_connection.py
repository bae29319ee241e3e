"""How a bucket is reached: address, credentials, time limits, a boto3 client and pyarrow's twin."""

import functools
import os
import re
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.credentials import RefreshableCredentials

from cifarray.errors import StoreAddressError, StoreAwayError
from cifarray.proxies import is_loopback, proxy_for
from cifarray.store.keys import checked_prefix, joined
from cifarray.store.s3_errors import no_answer, translated

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CHECK_CONNECT_S, CHECK_READ_S, CHECK_ATTEMPTS = 2, 4, 2
CHECK_DEADLINE_S = 14.0
"""Bounds what those three do not: name look-ups, hosts with many addresses, credential servers."""
CONNECT_S, READ_S, ATTEMPTS, ARROW_ATTEMPTS = 5, 60, 10, 6
"""For work, which outlives a server that restarts: so many attempts take some 10 to 30 s."""
RENEWED = frozenset({"iam-role", "container-role", "assume-role-with-web-identity", "sso"})
"""Kinds of passing credentials, as botocore calls them, that pyarrow finds and renews by itself."""


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
        self._arrow: tuple[Any, FileSystem] | None = None

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
            retries={"mode": "standard", "total_max_attempts": attempts},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=32,
            proxies={} if is_loopback(self.endpoint) else None,
        )
        # Every other AWS client reads this variable; boto3 reads AWS_DEFAULT_REGION alone.
        asked = os.environ.get("AWS_REGION") or self._session.region_name
        region = self.region or asked or "us-east-1"
        return self._session.client(
            "s3", endpoint_url=self.endpoint, region_name=region, config=config
        )

    def filesystem(self) -> "FileSystem":
        """Arrow's S3 filesystem with the credentials, region and endpoint that boto3 found."""
        client = self.client
        with translated(self), self._lock:
            credentials = self._session.get_credentials()
            frozen = credentials.get_frozen_credentials()
            if self._arrow is None or self._arrow[0] != frozen:
                self._arrow = frozen, self._arrow_filesystem(client, credentials, frozen)
            return self._arrow[1]

    def _arrow_filesystem(self, client: Any, credentials: Any, frozen: Any) -> "FileSystem":
        from pyarrow.fs import AwsStandardS3RetryStrategy

        from cifarray.store.s3_filesystem import KeylessFileSystem

        at = urlsplit(self.endpoint or client.meta.endpoint_url)
        is_aws = (at.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
        keys = {
            "access_key": frozen.access_key,
            "secret_key": frozen.secret_key,
            "session_token": frozen.token,
        }
        if isinstance(credentials, RefreshableCredentials) and credentials.method in RENEWED:
            keys = {}  # keys given here would end within the hour; pyarrow renews these by itself
        return KeylessFileSystem(
            (self.uri, self.endpoint),
            **keys,
            region=self.region,
            scheme=at.scheme or "https",
            endpoint_override=None if is_aws else at.netloc,
            proxy_options=proxy_for(at.geturl()),
            connect_timeout=CONNECT_S,
            request_timeout=READ_S,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ARROW_ATTEMPTS),
        )


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
