"""The lease of a run: which attempt is in charge, decided by conditional writes alone."""

import json
import secrets
from dataclasses import dataclass

from cifarray.errors import KeyMissingError
from cifarray.runs.status import now
from cifarray.store import Store, to_json

LEASE_FILE = "lease.json"
NOBODY = "nobody"


@dataclass
class Lease:
    """A lease that is held: the tag changes with every renewal."""

    store: Store
    key: str
    attempt: int
    owner: str
    tag: str

    def renew(self) -> bool:
        """Write it anew; False if another attempt or a stop has taken it since."""
        tag = self.store.replace(self.key, _content(self.attempt, self.owner), self.tag)
        self.tag = tag or self.tag
        return tag is not None


def take(store: Store, key: str, owner: str, last_attempt: int) -> Lease | None:
    """Take the lease with the next attempt's number; None if another took it at this moment."""
    first, tag = _read(store, key)
    recorded = first
    while recorded == first:  # an old attempt that renews its lease meanwhile is no rival
        number = max(recorded, last_attempt) + 1
        data = _content(number, owner)
        new_tag = store.create(key, data) if tag is None else store.replace(key, data, tag)
        if new_tag:
            return Lease(store, key, number, owner, new_tag)
        recorded, tag = _read(store, key)
    return None


def take_away(store: Store, key: str) -> None:
    """End whatever attempt holds the lease; the next one gets the next number as ever."""
    recorded, _ = _read(store, key)
    if recorded:
        store.write(key, _content(recorded, NOBODY))


def _read(store: Store, key: str) -> tuple[int, str | None]:
    """The number of the attempt that has it, 0 where it is damaged; no tag where it is absent."""
    try:
        data, tag = store.read_tagged(key)
    except KeyMissingError:
        return 0, None
    try:
        return max(0, int(json.loads(data)["attempt"])), tag
    except (ValueError, TypeError, KeyError):
        return 0, tag


def _content(attempt: int, owner: str) -> bytes:
    """Never twice the same bytes, so that a repeated request can tell its own write."""
    return to_json(
        {
            "schema_version": 1,
            "attempt": attempt,
            "owner": owner,
            "heartbeat_at": now(),
            "nonce": secrets.token_hex(8),
        }
    )
