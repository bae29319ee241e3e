"""Which processes belong to a node that we started, distinguished from others with the same pid."""

import os
import signal
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifarray.timers import Deadline

PROC = Path("/proc")
ORPHANS_GRACE_S = 2.0


@dataclass(frozen=True)
class Process:
    """A process of this boot; pid and start time together are never used twice."""

    pid: int
    started: int
    """Clock ticks between the machine's start and the process's."""
    parent: int = 0
    session: int = 0


def boot_id() -> str:
    """Changes each time the machine starts."""
    return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()


def find_process(pid: int) -> Process | None:
    """The living process of this pid; one that has ended and waits for its parent is not."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    if fields[0] in "ZX":
        return None
    return Process(pid, started=int(fields[19]), parent=int(fields[1]), session=int(fields[3]))


def is_alive(process: Process) -> bool:
    """Whether this exact process still runs."""
    found = find_process(process.pid)
    return found is not None and found.started == process.started


def this_process() -> dict[str, Any]:
    """What identifies this process among all on this machine, and its machine among others.

    A sandbox may hide part of it, which is then left out: the rest would not be sufficient.
    """
    described: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    with suppress(OSError):
        described["boot_id"] = boot_id()
        described["pid_namespace"] = os.readlink(PROC / "self/ns/pid")
    if own := find_process(os.getpid()):
        described["started"] = own.started
    return described


def recorded_is_alive(recorded: Mapping[str, Any]) -> bool | None:
    """Whether a process that described itself so still runs; None if that cannot be seen here.

    Other containers and machines are out of sight, and so may another user's processes be.
    """
    here = this_process()
    pid, started = recorded.get("pid"), recorded.get("started")
    seen = all(
        name in here and recorded.get(name) == here[name] for name in ("boot_id", "pid_namespace")
    )
    if not seen or not isinstance(pid, int) or not isinstance(started, int) or pid < 1:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists, though /proc may hide it
        found = find_process(pid)
        return None if found is None else found.started == started
    except OverflowError:
        return None
    return is_alive(Process(pid, started))


def command_line(pid: int) -> str:
    """The arguments that it was started with; empty if they cannot be read."""
    try:
        return (
            (PROC / str(pid) / "cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode("utf-8", "replace")
        )
    except OSError:
        return ""


def family(leader: Process, mark: str) -> list[Process]:
    """The leader, its session, and all descendants of both.

    Once the leader is gone, a member of its session counts only if its command line or its folder
    contains `mark`.
    """
    everyone = [
        found
        for entry in PROC.iterdir()
        if entry.name.isdecimal()
        if (found := find_process(int(entry.name)))
    ]
    by_pid = {process.pid: process for process in everyone}
    present = by_pid.get(leader.pid)
    if present and present.started != leader.started:
        return []
    ours = {
        process.pid
        for process in everyone
        if process.session == leader.pid and (present or _has_mark(mark, process))
    }
    grown = True
    while grown:
        children = {process.pid for process in everyone if process.parent in ours} - ours
        ours |= children
        grown = bool(children)
    return [by_pid[pid] for pid in sorted(ours)]


def end(leader: Process, mark: str, grace_s: float) -> list[Process]:
    """Ask the leader to end, and after the grace period kill what is left; the survivors."""
    members = family(leader, mark)
    led = is_alive(leader)
    _signal([leader] if led else members, signal.SIGTERM)
    _wait(members, grace_s if led else min(grace_s, ORPHANS_GRACE_S))
    members = [*members, *(late for late in family(leader, mark) if late not in members)]
    _signal(members, signal.SIGKILL)
    _wait(members, grace_s)
    return [process for process in members if is_alive(process)]


def _has_mark(mark: str, process: Process) -> bool:
    try:
        folder = os.readlink(PROC / str(process.pid) / "cwd")
    except OSError:
        folder = ""
    return mark in command_line(process.pid) or mark in folder


def _signal(processes: Collection[Process], number: signal.Signals) -> None:
    for process in processes:
        if is_alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue


def _wait(processes: Collection[Process], seconds: float) -> None:
    for _ in Deadline(seconds).looks(0.1):
        if not any(map(is_alive, processes)):
            break
        _reap(processes)


def _reap(processes: Collection[Process]) -> None:
    """Reap children of this process that have ended."""
    for process in processes:
        if process.parent == os.getpid():
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                continue
