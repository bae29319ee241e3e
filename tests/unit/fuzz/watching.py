"""One input at a time: what it raised, ran, held and took, judged against what an input may."""

import contextlib
import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from cifarray.errors import CifarrayError

MOST_CPU_S = 10
MOST_GROWTH_BYTES = 450 << 20
"""Of an input; with the 550 MiB of a command's libraries, 1 GB."""
MOST_ADDRESSES_BYTES = 4 << 30
"""Beyond what the process has mapped before it begins; what asks for more gets a MemoryError."""
FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
"""What no input may bring a command to do."""


class TooSlowError(BaseException):
    """Nothing that is tried catches this one."""


class Watch:
    """Runs inputs in this process and says what was wrong with each."""

    def __init__(self, marker: Path, most_cpu_s: float = MOST_CPU_S) -> None:
        self.most_cpu_s, self.marker = most_cpu_s, marker
        """A path that planted code writes to."""
        self.outcome = ""
        """How the last input ended: an error's sentence, or an exit code and what was printed."""
        self._forbidden: list[str] | None = None
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGPROF, _too_slow)
        limit = _memory("VmSize") + MOST_ADDRESSES_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    def run(self, action: Callable[[], Any]) -> str:
        """What is wrong with the input that the action tries; empty if nothing is."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
        before = _memory("VmRSS")
        said = io.StringIO()
        self._forbidden = []
        signal.setitimer(signal.ITIMER_PROF, self.most_cpu_s)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                action()
                self.outcome = "done"
        except (CifarrayError, SystemExit) as ended:
            self.outcome = f"{type(ended).__name__} {ended} {said.getvalue()}"
        except (Exception, TooSlowError):
            return traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            forbidden, self._forbidden = self._forbidden, None
        grown = _memory("VmHWM") - before
        if self.marker.exists():
            self.marker.unlink()
            return "planted code ran"
        if forbidden:
            return f"it did {', '.join(forbidden)}"
        if "Traceback" in said.getvalue():
            return f"it printed a traceback: {said.getvalue()[-3000:]}"
        if grown > MOST_GROWTH_BYTES:
            return f"it took {grown >> 20} MiB"
        return ""

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._forbidden is not None and event in FORBIDDEN:
            self._forbidden.append(f"{event}{arguments!r:.200}")


def _too_slow(_: int, __: FrameType | None) -> None:
    raise TooSlowError("it took more of a processor's time than an input may")


def _memory(name: str) -> int:
    """Bytes, of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) << 10


@contextlib.contextmanager
def own_home(folder: Path) -> Iterator[None]:
    """Hide the developer's settings, and give this process an empty home and working folder."""
    from tests.conftest import DEVELOPERS_OWN, SESSION

    for name in DEVELOPERS_OWN:
        os.environ.pop(name, None)
    own = {name: str(folder / name.lower()) for name in ("HOME", "TMPDIR", "CIFARRAY_STATE_DIR")}
    own |= {"CIFARRAY_CACHE": str(folder / "cache"), "CIFARRAY_STORE": str(folder / "none")}
    os.environ.update({**SESSION, **own})
    for name in ("home", "tmpdir"):
        (folder / name).mkdir(parents=True)
    before = Path.cwd()
    os.chdir(folder / "home")
    try:
        yield
    finally:
        os.chdir(before)
