"""Sentences for what boto3, pyarrow and S3 servers say when something fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnectionError

from cifarray.errors import (
    CifarrayError,
    KeyMissingError,
    StoreAwayError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
)

if TYPE_CHECKING:
    from cifarray.store.s3_connection import Connection

MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
LOST_RACE = frozenset(
    {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404"}
)
UNKNOWN_KEY = frozenset({"InvalidAccessKeyId", "XAdminUserNotFound", "InvalidAccessKey"})
WRONG_SECRET = frozenset({"SignatureDoesNotMatch", "InvalidSignature"})
REFUSED = frozenset({"AccessDenied", "Forbidden", "403", "AllAccessDisabled", "AccountProblem"})
EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
)
FULL = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "ENOSPC"})
"""What servers say that have no space left."""
BUSY = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"}
    | {"Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequests", "429", "408"}
)
"""What servers say that may do the same a moment later."""
ELSEWHERE = frozenset(
    {
        "PermanentRedirect",
        "301",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    }
)
NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, ProfileNotFound, ConfigParseError)
NOT_RENEWED = (CredentialRetrievalError, TokenRetrievalError)


def error_code(error: ClientError) -> str:
    """What the server calls this error; the HTTP status where it says no more."""
    code = error.response.get("Error", {}).get("Code", "")
    return str(code or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "unknown"))


@contextmanager
def translated(to: "Connection", key: str = "") -> Iterator[None]:
    """Turn whatever boto3 or pyarrow raise inside into a StoreError of one sentence."""
    try:
        yield
    except CifarrayError:
        raise
    except ClientError as error:
        raise _of_server(to, key, error) from error
    except FileNotFoundError as error:
        raise KeyMissingError(f"no {key} in {to.uri}") from error
    except RecursionError as error:  # botocore follows a redirection for ever
        raise StoreRefusedError(_elsewhere(to, "endless redirection")) from error
    except Boto3Error as error:  # of a managed transfer, which hides what the server said
        hidden = error.__context__
        if isinstance(hidden, ClientError):
            raise _of_server(to, key, hidden) from error
        told = hidden if isinstance(hidden, BotoCoreError | OSError) else error
        raise _kind_of_client(told)(_of_client(to, key, told)) from error
    except (BotoCoreError, OSError, ValueError) as error:
        raise _kind_of_client(error)(_of_client(to, key, error)) from error


def is_about_the_request(error: ClientError) -> bool:
    """Whether the server refuses this form of a request, with keys that it took for another.

    To checksums Google Cloud Storage answers SignatureDoesNotMatch.
    """
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code in WRONG_SECRET or (
        status in (400, 405, 411, 501) and code not in EXPIRED | UNKNOWN_KEY | ELSEWHERE | BUSY
    )


def is_of_its_own(error: object) -> bool:
    """Whether the server has a code for it that other servers do not use for a bucket or a key."""
    return isinstance(error, ClientError) and error_code(error) not in (
        MISSING | UNKNOWN_KEY | WRONG_SECRET | REFUSED | EXPIRED | ELSEWHERE | {"NoSuchBucket"}
    )


def is_denied(error: BaseException | None) -> bool:
    """Whether the server would do this for other credentials."""
    return isinstance(error, ClientError) and error_code(error) in REFUSED


def no_answer(to: "Connection", reason: str = "it does not answer") -> str:
    """The sentence for an endpoint that is down."""
    return (
        f"cannot reach {place(to)}: {reason}; check that the server runs, and check the address "
        "in --endpoint or AWS_ENDPOINT_URL_S3"
    )


def place(to: "Connection") -> str:
    """The server's address, for sentences."""
    return to.endpoint or "AWS S3"


def _of_server(to: "Connection", key: str, error: ClientError) -> StoreError:
    code = error_code(error)
    if code in MISSING and key:
        return KeyMissingError(f"no {key} in {to.uri}")
    return kind_of_answer(error)(_sentence(to, key, code, error))


def kind_of_answer(error: ClientError) -> type[StoreError]:
    """Whether a server that answers so is full, cannot do it now, or refuses."""
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in FULL or status == 507:
        return StoreFullError
    if code in BUSY or (status >= 500 and code not in ("NotImplemented", "501")):
        return StoreAwayError
    return StoreRefusedError


def _kind_of_client(error: BaseException) -> type[StoreError]:
    """Whether a request that got no answer is worth another try."""
    if isinstance(error, NO_CREDENTIALS + NOT_RENEWED + (SSLError,)):
        return StoreRefusedError
    if isinstance(error, HTTPClientError | NoConnectionError | OSError):
        return StoreAwayError
    return StoreRefusedError


def _sentence(to: "Connection", key: str, code: str, error: ClientError) -> str:
    bucket = to.bucket
    at = place(to)
    if code in MISSING or code == "NoSuchBucket":
        option = f" --endpoint-url {to.endpoint}" if to.endpoint else ""
        return (
            f"no bucket {bucket!r} at {at}; create it (`aws s3 mb s3://{bucket}{option}`) "
            "or name another with --store"
        )
    if code in UNKNOWN_KEY:
        return (
            f"{at} does not know the given access key ({code}); check AWS_ACCESS_KEY_ID, or the "
            "profile that AWS_PROFILE names"
        )
    if code in WRONG_SECRET:
        return (
            f"{at} refuses the given secret key ({code}); check AWS_SECRET_ACCESS_KEY, or the "
            "profile that AWS_PROFILE names"
        )
    if code in REFUSED:
        return (
            f"{at} does not let these credentials {error.operation_name} {key or to.uri} "
            f"({code}); ask its owner for read, write, list and delete on bucket {bucket!r}, "
            "or use other credentials"
        )
    if code in EXPIRED:
        return (
            f"the credentials for {at} have expired ({code}); renew them, as with `aws sso login`"
        )
    if code in ELSEWHERE:
        return _elsewhere(to, code)
    if code == "RequestTimeTooSkewed":
        return f"this machine's clock differs too much from that of {at}; set it right"
    message = error.response.get("Error", {}).get("Message") or "no reason given"
    return f"{at} failed to {error.operation_name} {key or to.uri}: {code}, {message}"


def _elsewhere(to: "Connection", code: str) -> str:
    return (
        f"bucket {to.bucket!r} of {place(to)} is in another region ({code}); set AWS_REGION to "
        "the bucket's region"
    )


def _of_client(to: "Connection", key: str, error: Any) -> str:
    at = place(to)
    if isinstance(error, NO_CREDENTIALS):
        return (
            f"no credentials for {at}: {_one_line(error)}; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, NOT_RENEWED):
        return f"cannot get credentials for {at}: {_one_line(error)}; sign in again"
    if isinstance(error, SSLError):
        return no_answer(to, f"TLS failed: {_one_line(error)}")
    if isinstance(error, HTTPClientError | NoConnectionError):
        return no_answer(to, _reason(error))
    return f"cannot use {key or to.uri} at {at}: {_one_line(error)}"


def _reason(error: Any) -> str:
    text = str(error)
    if "timeout" in text.lower() or "timed out" in text.lower():
        return "it does not answer"
    if "Connection broken" in text or "closed before" in text:
        return "it closes the connection"
    cause = error.kwargs.get("error") if hasattr(error, "kwargs") else None
    text = str(cause or text)
    for known in ("Connection refused", "Name or service not known", "No route to host"):
        if known in text:
            return known.lower()
    return _one_line(text)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")
