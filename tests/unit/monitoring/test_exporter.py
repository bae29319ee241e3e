"""The exporter over HTTP, as Prometheus sees it: what it serves, when it fails and how it ends."""

import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cifarray.metrics import STORE
from cifarray.monitoring.exporter import export
from cifarray.runs import Run
from cifarray.store import Store
from tests.unit.cli.conftest import Type, typed
from tests.unit.kubernetes.shipped import component
from tests.unit.monitoring.conftest import AddRun, ago

__all__ = ["typed"]

CIFARRAY = Path(sys.executable).with_name("cifarray")
PATIENCE_S = 30.0
CommandOutput = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> CommandOutput:
    """Every sample of a page of metrics, by name and labels."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(shown: CommandOutput, name: str, **labels: str) -> float | None:
    return shown.get((name, frozenset(labels.items())))


def scrape_until(url: str, true: Callable[[CommandOutput], bool]) -> CommandOutput:
    """Scrape again and again until what is shown is as it should be."""
    deadline = time.monotonic() + PATIENCE_S
    while not true(shown := scrape(url)):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    return shown


def is_read(shown: CommandOutput) -> bool:
    return value(shown, "cifarray_store_up") is not None


@contextmanager
def exporting(store: Store, remarks: list[str]) -> Iterator[str]:
    """An exporter in a thread of this process; where it answers."""
    stop, said = threading.Event(), threading.Event()

    def say(text: str) -> None:
        remarks.append(text)
        said.set()

    thread = threading.Thread(target=export, args=(store, "127.0.0.1", 0, 0.05, stop, say))
    thread.start()
    try:
        assert said.wait(PATIENCE_S)
        yield remarks[0].split()[1]
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_it_serves_every_registered_metric_and_no_other(here: Store, one_of_each: dict[str, Run]):
    with exporting(here, []) as url:
        shown = scrape_until(url, is_read)
    assert {name for name, _ in shown} == set(STORE)
    assert value(shown, "cifarray_runs", state="lost") == 1
    best = {"run": "a-running", "job_name": "train-digits", "metric": "validation.top1"}
    assert value(shown, "cifarray_run_best", **best) == 0.97
    assert value(shown, "cifarray_store_up") == 1


def test_help_and_kind_of_each_metric_are_the_registered_ones(here: Store):
    with exporting(here, []) as url:
        scrape_until(url, is_read)
        with urllib.request.urlopen(url, timeout=10) as answer:
            families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    for name, metric in STORE.items():
        family = families[name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)


def test_what_happens_to_a_run_shows(here: Store, add_run: AddRun):
    run = add_run("a-run")
    labels = {"run": "a-run", "job_name": "train-digits"}
    with exporting(here, []) as url:
        scrape_until(url, lambda shown: value(shown, "cifarray_runs", state="pending") == 1)
        attempt = run.start_attempt("a driver")
        attempt.heartbeat({"unit": "epochs", "done": 2, "total": 3})
        shown = scrape_until(url, lambda s: value(s, "cifarray_runs", state="running") == 1)
        assert value(shown, "cifarray_run_attempts", **labels) == 1
        attempt.close("finished")
        scrape_until(url, lambda shown: value(shown, "cifarray_runs", state="finished") == 1)


def test_names_that_would_break_the_format_are_escaped(here: Store, add_run: AddRun):
    add_run("a-run", job='a"job\n{x="y"} 1')
    with exporting(here, []) as url:
        shown = scrape_until(url, is_read)
    labels = {"run": "a-run", "job_name": 'a"job\n{x="y"} 1'}
    assert value(shown, "cifarray_run_attempts", **labels) == 0


def test_it_goes_on_while_the_store_is_away_and_says_so_once(here: Store, add_run: AddRun):
    add_run("a-run", state="running", heartbeat_at=ago(0))
    root, remarks = Path(here.uri), list[str]()
    with exporting(here, remarks) as url:
        scrape_until(url, is_read)
        kept = root.rename(root.with_name("kept"))
        root.symlink_to(root)
        away = scrape_until(url, lambda shown: value(shown, "cifarray_store_up") == 0)
        assert value(away, "cifarray_runs", state="running") == 1
        name = "cifarray_store_read_errors_total"
        scrape_until(url, lambda shown: (value(shown, name) or 0) >= 3)
        root.unlink()
        kept.rename(root)
        scrape_until(url, lambda shown: value(shown, "cifarray_store_up") == 1)
    assert len(remarks) == 3
    assert "retrying every 0.05 s" in remarks[1]
    assert "can be read again" in remarks[2]


@contextmanager
def command(*options: str) -> Iterator["subprocess.Popen[str]"]:
    """`cifarray exporter` on a free port, as a process of its own."""
    words = [CIFARRAY, "exporter", "--port", "0", *options]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address_of(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.readline().split()[1]


def ended(process: "subprocess.Popen[str]", by: signal.Signals) -> tuple[int, str]:
    """Exit code and remaining remarks of a process that is told to end."""
    process.send_signal(by)
    _, errors = process.communicate(timeout=5)
    return process.returncode, errors


@pytest.mark.parametrize(("options", "reached"), [((), False), (("--host", "0.0.0.0"), True)])
def test_it_listens_on_loopback_unless_told_otherwise(
    here: Store, options: tuple[str, ...], reached: bool
) -> None:
    with command("--store", here.uri, *options) as process:
        port = int(address_of(process).split(":")[2].removesuffix("/metrics"))
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        with socket.socket() as other:  # 127.0.0.2 is this machine too, and another address of it
            other.settimeout(5)
            assert (other.connect_ex(("127.0.0.2", port)) == 0) is reached


def test_the_manifest_opens_it_to_the_cluster() -> None:
    (deployment,) = (each for each in component("monitoring") if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["cifarray", "exporter", "--host", "0.0.0.0"]


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_cleanly(here: Store, add_run: AddRun, by: signal.Signals, code: int):
    add_run("a-run")
    with command("--store", here.uri) as process:
        shown = scrape_until(address_of(process), is_read)
        assert value(shown, "cifarray_runs", state="pending") == 1
        assert ended(process, by) == (code, "")


def test_a_store_that_never_answers_holds_up_neither_a_scrape_nor_the_end():
    """What it shows while it waits tells that it waits: a round that has ended is shown as such."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        hole.settimeout(PATIENCE_S)
        endpoint = f"http://127.0.0.1:{hole.getsockname()[1]}"
        with command("--store", "s3://bucket/p", "--endpoint", endpoint) as process:
            url = address_of(process)
            asked, _ = hole.accept()
            with asked:
                assert not is_read(scrape(url))
                assert ended(process, signal.SIGTERM) == (0, "")


def test_a_port_that_is_taken_is_said_in_one_sentence(typed: Type, here: Store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = typed(
            *("exporter", "--store", here.uri, "--host", "127.0.0.1", "--port", str(port))
        )
    assert refused.code == 2
    assert f"cannot listen on 127.0.0.1:{port}: " in refused.err
    assert "--port" in refused.err
