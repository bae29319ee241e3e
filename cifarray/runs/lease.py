"""The lease of a run: which attempt is in charge, decided by conditional writes alone."""

import secrets
from dataclasses import dataclass

from cifarray.errors import KeyMissingError
from cifarray.runs.status import now
from cifarray.spec.bounds import parse_json
from cifarray.store import Store, to_json

LEASE_FILE = "lease.json"
NOBODY = "nobody"
RENEW_TRIES = 5


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
        for _ in range(RENEW_TRIES):
            tag = self.store.replace(self.key, _content(self.attempt, self.owner), self.tag)
            if tag is not None:
                self.tag = tag
                return True
            holder, tag = _read(self.store, self.key)
            if tag is None or holder != (self.attempt, self.owner):
                return False
            self.tag = tag  # our own write, whose answer never came
        return False


def take(store: Store, key: str, owner: str, last_attempt: int) -> Lease | None:
    """Take the lease with the next attempt's number; None if another took it at this moment."""
    (first, _), tag = _read(store, key)
    recorded = first
    while recorded == first:  # an old attempt that renews its lease meanwhile is no rival
        number = max(recorded, last_attempt) + 1
        data = _content(number, owner)
        new_tag = store.create(key, data) if tag is None else store.replace(key, data, tag)
        if new_tag:
            return Lease(store, key, number, owner, new_tag)
        (recorded, _), tag = _read(store, key)
    return None


def take_away(store: Store, key: str) -> int:
    """End the attempt that holds the lease, which keeps its number; 0 if none has ever held it.

    One that takes the lease at this moment keeps it.
    """
    (first, _), tag = _read(store, key)
    recorded = first
    while recorded == first and recorded and tag:  # it may renew its lease meanwhile
        if store.replace(key, _content(recorded, NOBODY), tag):
            break
        (recorded, _), tag = _read(store, key)
    return first


def _read(store: Store, key: str) -> tuple[tuple[int, str], str | None]:
    """The attempt that has it, by number and owner, and the tag.

    The number is 0 where the lease is damaged; the tag is None where it is absent.
    """
    try:
        data, tag = store.read_tagged(key)
    except KeyMissingError:
        return (0, ""), None
    try:
        content = parse_json(data)
        return (max(0, int(content["attempt"])), str(content.get("owner"))), tag
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return (0, ""), tag


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
