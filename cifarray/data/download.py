"""Downloads a published file by HTTP: resumes, retries a few times, and checks the result.

The server's own tags of a file are kept beside it, so that a later call can tell whether the file
on this machine is still the one at the address.
"""

import fcntl
import hashlib
import json
import os
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cifarray.data.progress import Progress
from cifarray.errors import ArchiveError
from cifarray.proxies import http_client
from cifarray.spec.bounds import parse_json

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S = 30.0
"""For each connection, and each wait for more bytes."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before the next try; one that brings something starts again at the shortest."""
MOST_TRIES = 50
REFUSED = frozenset({400, 401, 403, 404, 405, 406, 410, 451})
"""Answers that another try does not change."""
TAGS = ("ETag", "Last-Modified")


@dataclass(frozen=True)
class Download:
    """One file to fetch."""

    url: str
    target: Path
    limit_bytes: int
    md5: str | None = None
    """None if none was published; then the server is asked whether a kept file is current."""
    pauses_s: tuple[float, ...] = PAUSES_S
    timeout_s: float = TIMEOUT_S

    @property
    def part(self) -> Path:
        """What has arrived so far."""
        return self.target.with_name(f"{self.target.name}.part")


def download(wanted: Download, progress: Progress) -> Path:
    """The file at `wanted.target`, from the cache where it is whole and current.

    Raises:
        ArchiveError: no such address, no answer after a few tries, too large, or a wrong md5.
    """
    if not is_address(wanted.url):
        raise ArchiveError(f"{wanted.url!r} is not an http or https address")
    try:
        wanted.target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(wanted.target, progress):
            if not (wanted.md5 and wanted.target.exists() and _md5(wanted.target) == wanted.md5):
                _fetch(wanted, progress)
                _check_md5(wanted)
    except OSError as error:
        raise ArchiveError(
            f"cannot keep {wanted.target.name} in {wanted.target.parent}: "
            f"{error.strerror or error}; set CIFARRAY_CACHE to a folder with enough space"
        ) from error
    return wanted.target


def is_address(text: str) -> bool:
    """Whether this is an http or https address rather than a path."""
    try:
        parts = urllib.parse.urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable()
    except ValueError:
        return False


def shown(url: str) -> str:
    """The address without user, password and query, which may be secret."""
    parts = urllib.parse.urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, place, parts.path, "", ""))


def _fetch(wanted: Download, progress: Progress) -> None:
    """Try until the file is whole; give up when tries in a row bring nothing."""
    progress.start(f"connecting to {shown(wanted.url)}", None, "bytes")
    pauses = iter(wanted.pauses_s)
    for _ in range(MOST_TRIES):
        before = _size(wanted.part)
        reason = _try(wanted, progress)
        if reason is None:
            return
        if _size(wanted.part) > before:
            pauses = iter(wanted.pauses_s)
        pause = next(pauses, None)
        if pause is None:
            break
        progress.start(f"{wanted.target.name}: {reason}, trying again", None, "bytes")
        time.sleep(pause)
    raise ArchiveError(
        f"{shown(wanted.url)} cannot be downloaded ({reason}); the same command resumes after "
        f"{_size(wanted.part)} bytes; or give a path or another address with --archive"
    )


def _try(wanted: Download, progress: Progress) -> str | None:
    """One request for what is missing; None when the file is whole, else why it is not."""
    import httpx2

    try:
        return None if _request(wanted, progress) else "the connection ended early"
    except httpx2.HTTPStatusError as error:
        answer = error.response
        said = _line(f"{answer.status_code} {answer.reason_phrase}")
        if answer.status_code in REFUSED:
            raise ArchiveError(
                f"{shown(wanted.url)} answers {said}; give a path or another address with --archive"
            ) from error
        return said
    except httpx2.HTTPError as error:
        return _line(re.sub(r"^\[Errno -?\d+\] ", "", str(error))) or type(error).__name__
    except (httpx2.InvalidURL, ValueError) as error:
        raise ArchiveError(
            f"{shown(wanted.url)} cannot be asked ({_line(str(error))}); check the address, and "
            "the proxy if the environment names one"
        ) from error


def _line(text: str) -> str:
    """What a server said, as a short line that cannot steer a terminal."""
    return "".join(letter for letter in text if letter.isprintable())[:100]


def _request(wanted: Download, progress: Progress) -> bool:
    """Ask for what is missing and append it; whether the file is whole afterwards."""
    headers, timeout_s = _headers(wanted), wanted.timeout_s
    with (
        http_client(wanted.url) as client,
        client.stream(
            "GET", wanted.url, headers=headers, timeout=timeout_s, follow_redirects=True
        ) as answer,
    ):
        if answer.status_code == 304:
            return True
        if answer.status_code == 416:
            return _nothing_after(wanted, answer.headers.get("Content-Range", ""))
        answer.raise_for_status()
        done = _size(wanted.part)
        if not _continues(answer, done):
            done = 0
        total = _total(answer, done)
        if (total or 0) > wanted.limit_bytes:
            raise _too_large(wanted)
        _keep_tags(wanted.part, answer.headers)
        progress.start(f"downloading {wanted.target.name}", total, "bytes")
        progress.advance(done)
        _append(wanted, answer, done, progress)
    _finish(wanted)
    return True


def _append(wanted: Download, answer: "httpx2.Response", done: int, progress: Progress) -> None:
    """Write what arrives behind the part's first `done` bytes. Raises: httpx2.HTTPError if cut."""
    with wanted.part.open("ab") as file:
        file.truncate(done)
        for chunk in answer.iter_raw():
            done += len(chunk)
            if done > wanted.limit_bytes:
                raise _too_large(wanted)
            file.write(chunk)
            progress.advance(len(chunk))


def _nothing_after(wanted: Download, content_range: str) -> bool:
    """The server has nothing behind the part: it is whole, or it is of another file."""
    if content_range == f"bytes */{_size(wanted.part)}":
        _finish(wanted)
        return True
    wanted.part.unlink(missing_ok=True)
    return False


def _finish(wanted: Download) -> None:
    os.replace(wanted.part, wanted.target)
    if _tags_file(wanted.part).exists():
        os.replace(_tags_file(wanted.part), _tags_file(wanted.target))


def _headers(wanted: Download) -> dict[str, str]:
    headers = {"User-Agent": "cifarray", "Accept-Encoding": "identity"}
    arrived = _size(wanted.part)
    if arrived:
        tags = _kept_tags(wanted.part)
        if tags or wanted.md5:  # else a changed file could not be told from the old one
            headers["Range"] = f"bytes={arrived}-"
        if tags:
            headers["If-Range"] = tags.get("ETag") or tags["Last-Modified"]
    elif wanted.target.exists() and not wanted.md5:
        names = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
        headers |= {names[name]: value for name, value in _kept_tags(wanted.target).items()}
    return headers


def _continues(answer: "httpx2.Response", done: int) -> bool:
    """Whether the answer begins where the part ends; a server may send the whole file instead."""
    start: str = answer.headers.get("Content-Range", "")
    return answer.status_code == 206 and start.startswith(f"bytes {done}-")


def _total(answer: "httpx2.Response", done: int) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return done + int(length) if length.isdecimal() else None


def _too_large(wanted: Download) -> ArchiveError:
    wanted.part.unlink(missing_ok=True)
    return ArchiveError(
        f"{shown(wanted.url)} is larger than the {wanted.limit_bytes} bytes allowed for this "
        "dataset's archive; is it another dataset's?"
    )


def _check_md5(wanted: Download) -> None:
    if wanted.md5 is None or (found := _md5(wanted.target)) == wanted.md5:
        return
    wanted.target.unlink()
    raise ArchiveError(
        f"{shown(wanted.url)} has md5 {found}, but {wanted.md5} was published; the file was "
        "removed: run the command again, or give a path or another address with --archive"
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _alone(target: Path, progress: Progress) -> Iterator[None]:
    """Of several processes that want the same file, one fetches it and the others wait."""
    with target.with_name(f"{target.name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.start(f"waiting for another download of {target.name}", None, "bytes")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tags_file(path: Path) -> Path:
    """Where the tags of a downloaded file, or of a part of one, are kept."""
    return path.with_name(f"{path.name}.json")


def _keep_tags(path: Path, headers: Mapping[str, str]) -> None:
    """Keep the tags of an answer; weak ones are left out, since no transfer resumes from them."""
    tags = {name: headers.get(name, "") for name in TAGS}
    strong = {name: tag for name, tag in tags.items() if tag and not tag.startswith("W/")}
    _tags_file(path).write_text(json.dumps(strong), encoding="utf-8")


def _kept_tags(path: Path) -> dict[str, str]:
    """The kept tags; none where nothing sound is kept."""
    try:
        kept = parse_json(_tags_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    tags = kept if isinstance(kept, dict) else {}
    found = {name: tags.get(name) for name in TAGS}
    return {
        name: tag
        for name, tag in found.items()
        if isinstance(tag, str) and tag.isascii() and tag.isprintable()
    }
