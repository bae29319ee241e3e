"""SHA-256 as hexadecimal digits: of bytes, of a file, of what arrives in pieces.

Files, records and names are identified by these digests.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def content_sha256(content: bytes | str) -> str:
    """Of bytes, or of a text in UTF-8."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_sha256(path: Path) -> str:
    """Of a file, which is never in memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces_sha256(pieces: Iterable[bytes]) -> str:
    """Of bytes that arrive in pieces."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
