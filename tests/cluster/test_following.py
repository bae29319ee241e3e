"""Whoever follows a run may lose patience or the network; the run does not."""

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster.kubectl import until
from tests.cluster.runs import PROFILE, SHORT, STARTS_S, Runs, profile_file, same_figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Passage:
    """A way to a server that passes bytes on, until every connection on it is cut."""

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self._listener, self._target = listener, target
        self._open: list[socket.socket] = []
        self.cuts = 0

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()

    def cut(self) -> None:
        """End all that is open at this moment."""
        ended, self._open = self._open, []
        for each in ended:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
                self.cuts += 1


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def passage_to_the_cluster(kubeconfig: Path, folder: Path) -> Iterator[tuple[Passage, Path]]:
    """A passage in front of the API server, and a kubeconfig that leads through it."""
    config = json.loads(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    server = urlsplit(cluster["server"])
    assert server.hostname is not None
    listener = socket.create_server(("127.0.0.1", 0))
    passage = Passage(listener, (server.hostname, server.port or 443))
    threading.Thread(target=passage.serve, daemon=True).start()
    cluster |= {
        "server": f"{server.scheme}://127.0.0.1:{listener.getsockname()[1]}",
        "tls-server-name": server.hostname,
    }
    path = folder / "through-the-passage"
    path.write_text(json.dumps(config))
    try:
        yield passage, path
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        passage.cut()


@pytest.mark.parametrize("mode", ["rayjob", "ray-jobs"])
def test_a_port_forward_that_breaks_is_opened_again(
    runs: Runs, submitter: Path, undisturbed: dict[str, Any], tmp_path: Path, name: str, mode: str
):
    with passage_to_the_cluster(submitter, tmp_path) as (passage, kubeconfig):
        through = runs.cifarray.with_environment(KUBECONFIG=str(kubeconfig))
        path = profile_file(tmp_path, mode=mode)
        following = through.start("submit", "train-digits", "--cluster", path, *SHORT,
                                  "--name", name)  # fmt: skip
        until("the run", lambda: name in runs.cifarray("runs", "--cluster", PROFILE), 120.0)
        for epochs in (1, 3):
            until("an epoch", lambda n=epochs: runs.epochs_done(name) >= n, STARTS_S)  # type: ignore[misc]
            passage.cut()
        said = following.communicate(timeout=STARTS_S)[1]
        assert passage.cuts > 0
    assert following.returncode == 0, said
    assert f"run {name} finished" in said
    assert same_figures(runs.report(name), undisturbed)


def test_ctrl_c_leaves_a_run_alone(runs: Runs, undisturbed: dict[str, Any], name: str):
    following = runs.cifarray.start(
        "submit", "train-digits", "--cluster", PROFILE, *SHORT, "--name", name
    )
    until("an epoch", lambda: name in all_runs(runs) and runs.epochs_done(name))
    following.send_signal(signal.SIGINT)
    said = following.communicate(timeout=60)[1]
    assert following.returncode == 130
    assert "continues in the background" in said
    assert same_figures(runs.wait_until_finished(name), undisturbed)
    until("its pods to be gone", lambda: not runs.pods(name), 240.0)


def all_runs(runs: Runs) -> str:
    return runs.cifarray("runs", "--cluster", PROFILE)
