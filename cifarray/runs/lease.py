"""The lease of a run: which attempt is in charge, decided by conditional writes alone."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cifarray.errors import KeyMissingError
from cifarray.runs.status import now
from cifarray.spec.bounds import parse_json
from cifarray.store import Store, to_json

NOBODY = "nobody"
RENEW_TRIES = 5
HEARTBEAT_S = 15.0
"""How often an attempt renews its lease, which is its heartbeat."""
LONGEST_HEARTBEAT_S = 120.0
"""Upper limit of a recorded interval, so that a record cannot make a reader wait longer."""


@dataclass(frozen=True)
class Holder:
    """The holder of a lease, by its own description."""

    attempt: int = 0
    """0 where there is no lease, or a damaged one."""
    owner: str = ""
    heartbeat_s: float = HEARTBEAT_S
    """The interval at which it renews the lease."""
    process: Mapping[str, Any] | None = None
    """The driver's process, by which its own machine knows whether it lives."""

    @property
    def is_nobody(self) -> bool:
        """Whether a stop or a deletion has taken it away: its attempt writes nothing any more."""
        return self.owner == NOBODY


@dataclass
class Lease:
    """A held lease: the tag changes with every renewal."""

    store: Store
    key: str
    holder: Holder
    tag: str

    def renew(self) -> bool:
        """Write it again; False if another attempt or a stop has taken it since."""
        for _ in range(RENEW_TRIES):
            tag = self.store.replace(self.key, _content(self.holder), self.tag)
            if tag is not None:
                self.tag = tag
                return True
            found, tag = read(self.store, self.key)
            ours = (self.holder.attempt, self.holder.owner)
            if tag is None or (found.attempt, found.owner) != ours:
                return False
            self.tag = tag  # our own write, whose answer never came
        return False


def take(store: Store, key: str, holder: Holder, last_attempt: int) -> Lease | None:
    """Take the lease with the next attempt's number; None if another took it at this moment."""
    found, tag = read(store, key)
    first = found.attempt
    while found.attempt == first:  # an old attempt that renews its lease meanwhile is no rival
        taker = replace(holder, attempt=max(found.attempt, last_attempt) + 1)
        data = _content(taker)
        new_tag = store.create(key, data) if tag is None else store.replace(key, data, tag)
        if new_tag:
            return Lease(store, key, taker, new_tag)
        found, tag = read(store, key)
    return None


def take_away(store: Store, key: str) -> int:
    """End the attempt that holds the lease, which keeps its number; 0 if none has ever held it.

    One that takes the lease at this moment keeps it.
    """
    found, tag = read(store, key)
    first = found.attempt
    while found.attempt == first and first and tag:  # it may renew its lease meanwhile
        if take_away_if(store, key, first, tag):
            break
        found, tag = read(store, key)
    return first


def take_away_if(store: Store, key: str, attempt: int, tag: str) -> bool:
    """End this attempt if its lease has not been renewed or taken since `tag`."""
    return store.replace(key, _content(Holder(attempt, NOBODY)), tag) is not None


def read(store: Store, key: str) -> tuple[Holder, str | None]:
    """Who holds the lease, and the tag of its version; None if there is none."""
    try:
        data, tag = store.read_tagged(key)
    except KeyMissingError:
        return Holder(), None
    try:
        content = parse_json(data)
        every_s, process = content.get("heartbeat_s"), content.get("process")
        return Holder(
            attempt=max(0, int(content["attempt"])),
            owner=str(content.get("owner")),
            heartbeat_s=_bounded_interval(every_s),
            process=process if isinstance(process, dict) else None,
        ), tag
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return Holder(), tag


def _bounded_interval(every_s: object) -> float:
    if isinstance(every_s, bool) or not isinstance(every_s, int | float) or not every_s > 0:
        return HEARTBEAT_S
    return min(float(every_s), LONGEST_HEARTBEAT_S)


def _content(holder: Holder) -> bytes:
    """Never twice the same bytes, so that a repeated request can tell its own write."""
    return to_json(
        {
            "schema_version": 1,
            "attempt": holder.attempt,
            "owner": holder.owner,
            "heartbeat_s": holder.heartbeat_s,
            "process": holder.process,
            "heartbeat_at": now(),
            "nonce": secrets.token_hex(8),
        }
    )
