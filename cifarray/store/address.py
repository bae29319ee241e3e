"""Parses a store's URI, endpoint, region and keys, and corrects mistyped URIs."""

import os
import re
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from cifarray.errors import StoreAddressError
from cifarray.store.keys import checked_prefix

S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})
GOOGLE_SCHEMES = frozenset({"gs", "gcs"})
OTHER_SCHEMES = frozenset(
    {"abfs", "abfss", "adl", "az", "azure", "b2", "cos", "dbfs", "ftp", "hdfs", "hf", "http"}
    | {"https", "minio", "nfs", "obs", "oss", "r2", "rclone", "sftp", "smb", "ssh", "swift", "wasb"}
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")
_DIRECTORY = re.compile(r"(localhost)?(/.*)", re.DOTALL)


@dataclass(frozen=True)
class Access:
    """What opens a bucket beside its address; the standard AWS chain gives what is None here."""

    region: str | None = None
    key_id: str | None = None
    secret_key: str | None = field(default=None, repr=False)

    @property
    def without_keys(self) -> "Access":
        """What may be pickled: another process finds keys in its own environment."""
        return replace(self, key_id=None, secret_key=None)


STANDARD_CHAIN = Access()


def local_directory(uri: str) -> str | None:
    """The directory that `uri` names; None for `s3://`.

    A directory whose name looks like a scheme is given as `./s3:...`.

    Raises: StoreAddressError for another scheme, and for one that is mistyped.
    """
    found = _SCHEME.fullmatch(uri)
    if found is None:
        return uri
    scheme, slashes, rest = found[1], found[2], found[3]
    if uri.startswith("s3://") and len(slashes) == 2:
        return None
    if uri.startswith("file://") and (path := _DIRECTORY.fullmatch(uri.removeprefix("file://"))):
        return path[2]
    known = scheme.lower() in S3_SCHEMES | GOOGLE_SCHEMES | OTHER_SCHEMES | {"file"}
    if not slashes and not known:
        return uri
    meant = _meant(scheme.lower(), rest)
    if slashes[1:] and scheme.lower() not in S3_SCHEMES | {"file"}:
        raise StoreAddressError(f"cannot open a store of kind {scheme}://; {meant}")
    shown = uri if "@" not in uri and "?" not in uri else f"{scheme}:(withheld)"
    directory = "" if slashes[1:] else f", or ./{scheme}:... for a directory of that name"
    raise StoreAddressError(f"cannot open a store at {shown!r}; {meant}{directory}")


def _meant(scheme: str, rest: str) -> str:
    """What to give instead."""
    shown = rest if rest and "@" not in rest and "?" not in rest else "bucket/prefix"
    if scheme in S3_SCHEMES:
        return f"give s3://{shown}"
    if scheme in GOOGLE_SCHEMES:
        return (
            f"give s3://{shown} with --endpoint https://storage.googleapis.com, if it now "
            "supports conditional writes (docs/stores.md)"
        )
    if scheme == "file":
        return f"give the directory itself, as /{shown}"
    if scheme in ("http", "https"):
        return "give s3://bucket/prefix, and the server's address with --endpoint"
    return "give s3://bucket/prefix or a local directory"


def bucket_and_prefix(uri: str) -> tuple[str, str]:
    """The bucket of an `s3://` URI and what follows it. Raises: StoreAddressError."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        shown = bucket if "@" not in bucket and ":" not in bucket else "(withheld)"
        raise StoreAddressError(
            f"cannot open a store in bucket {shown!r}; give s3://bucket/prefix; a bucket's name "
            "has 3 to 63 letters, digits, '.' and '-', and the URI contains no credentials"
        )
    return bucket, checked_prefix(prefix)


def region_of_environment() -> str | None:
    """The region that the standard AWS variables name."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def endpoint_of_environment() -> str | None:
    """The server that the standard AWS variables name."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def checked_endpoint(endpoint: str | None) -> str | None:
    """`endpoint` without a trailing slash. Raises: StoreAddressError if it is no server's."""
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
