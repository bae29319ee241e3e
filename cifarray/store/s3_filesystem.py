"""Arrow's S3 filesystem as a store hands it out: its keys stay in this process."""

import functools
from typing import TYPE_CHECKING, Any

from pyarrow.fs import S3FileSystem

if TYPE_CHECKING:
    from cifarray.store.s3 import S3Store


class KeylessFileSystem(S3FileSystem):  # type: ignore[misc]  # pyarrow has no types
    """Pickled as the address alone, since Ray Tune keeps pickles of it in the store.

    Who unpickles it opens the store anew, with the credentials that it finds itself.
    """

    def __init__(self, address: tuple[str, str | None], **options: Any) -> None:
        super().__init__(**options)
        self._address = address

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, self._address


def _open(uri: str, endpoint: str | None) -> S3FileSystem:
    return _store(uri, endpoint).filesystem()


@functools.cache
def _store(uri: str, endpoint: str | None) -> "S3Store":
    """One for all that this process unpickles: each first looks for credentials and the bucket."""
    from cifarray.store.s3 import S3Store

    return S3Store(uri, endpoint)
