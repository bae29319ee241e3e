"""The post-mortem of a failed attempt, which explains the failure when nothing of it runs any more.

One file in the attempt's folder, written by its driver. It contains no secrets, and is bounded in
size.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cifarray.errors import KeyMissingError, StoreDamagedError, StoreError
from cifarray.runs.failures.causes import Cause
from cifarray.runs.run import Run
from cifarray.store import Store
from cifarray.store.layout import FAILURES, LOG_FILE, POST_MORTEM_FILE

LINES, LINE_CHARS = 80, 500
"""Of the end of each log."""
MOST_LOGS = 16
HIDDEN = "***"

_SECRET_NAME = re.compile(r"secret|password|passwd|token|credential|_key$|^key$", re.IGNORECASE)
_SECRETS = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\b(?:hf|ghp|gho|glpat|xox[bp])[_-][A-Za-z0-9_-]{16,}|"
    r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*|"
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|"
    r"(?i:(?<=bearer )\S+|(?<=x-amz-signature=)\w+|(?<=x-amz-security-token=)[^&\s]+)"
)
_ASSIGNED = re.compile(
    r"(?i)\b([\w-]*(?:secret|password|passwd|token|access_?key)[\w-]*[\"']?\s*[=:]\s*[\"']?)"
    r"([^\s\"',;&]{6,})"
)


def write_post_mortem(store: Store, prefix: str, found: Mapping[str, Any]) -> None:
    """Keep what was found of an attempt in its folder, without secrets. Raises: StoreError."""
    known = _values_of_secrets(os.environ)
    store.write_json(f"{prefix}/{POST_MORTEM_FILE}", {"schema_version": 1, **_masked(found, known)})


def read_post_mortem(run: Run, attempt: int) -> dict[str, Any] | None:
    """What an attempt's driver kept; None if it kept nothing that can be read."""
    try:
        content = run.store.read_json(run.place.of_attempt(attempt).key(POST_MORTEM_FILE))
    except (KeyMissingError, StoreDamagedError):
        return None
    return content if isinstance(content, dict) else None


def cause_as_dict(cause: Cause) -> dict[str, str]:
    """A cause in the file's format."""
    return {"sentence": cause.sentence, "remedy": cause.remedy}


def last_lines(text: str, count: int = LINES) -> list[str]:
    """The end of a log; long lines are cut."""
    return [line[:LINE_CHARS] for line in text.rstrip().splitlines()[-count:]]


def stored_log(run: Run) -> tuple[str, str]:
    """(key, text) of the newest log that an attempt's driver left in the store; else empty."""
    for number in reversed(run.attempt_numbers()):
        key = run.place.of_attempt(number).key(LOG_FILE)
        try:
            return key, run.store.read(key).decode("utf-8", "replace")
        except KeyMissingError:
            continue
    return "", ""


def failure_records(store: Store, prefix: str, count: int = 5) -> list[dict[str, Any]]:
    """The last records of workers that failed in an attempt, oldest first."""
    try:
        keys = sorted(entry.key for entry in store.list(f"{prefix}/{FAILURES}"))[-count:]
        return [store.read_json(key) for key in keys]
    except StoreError:
        return []


def masked(text: str, known: Iterable[str] = ()) -> str:
    """A text without what looks like a key, a token or a password, and without known ones."""
    for value in known:
        text = text.replace(value, HIDDEN)
    return _ASSIGNED.sub(rf"\g<1>{HIDDEN}", _SECRETS.sub(HIDDEN, text))


def _values_of_secrets(environment: Mapping[str, str]) -> list[str]:
    named = (value for name, value in environment.items() if _SECRET_NAME.search(name))
    return sorted({value for value in named if len(value) >= 8}, key=len, reverse=True)


def _masked(value: Any, known: list[str]) -> Any:
    if isinstance(value, str):
        return masked(value, known)
    if isinstance(value, Mapping):
        return {str(key): _masked(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item, known) for item in value]
    return value
