"""What a run exports while it is carried out: found on its Ray node, and by a real Prometheus."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cifarray.backends.local.node import RAYS_FOLDER, free_ports
from cifarray.backends.local.state import Node
from cifarray.metrics import RAY_PREFIX, STORE, TRAINING
from cifarray.runs import Run
from tests.conftest import REPOSITORY
from tests.integration.command_line import CommandLine, wait_for, wait_until

DISCOVERY_FILE = "prom_metrics_service_discovery.json"
RULES = REPOSITORY / "k8s" / "components" / "monitoring" / "rules.yaml"
FIRST_SEEN_S = 200.0
"""Workers start, which takes long on a busy machine, train an epoch, and Ray passes figures on."""
GONE_S = 60.0
LONG = ("--set", "train.global_batch_size=8", "--set", "train.epochs=400")
LONG_SWEEP = (*LONG, "--set", "sweep.trials=1", "--set", "sweep.scheduler.name=none")
SHOWN_ON_CPU = {f"{RAY_PREFIX}{name}" for name in TRAINING} - {"ray_cifarray_gpu_memory_bytes"}


@contextmanager
def carried_out(cifarray: CommandLine, job: str, *options: str) -> Iterator[Run]:
    """A run that goes on until the test is done with it."""
    name = f"metrics-of-{job}"
    following = cifarray.start("submit", job, *options, "--name", name)
    try:
        wait_until(lambda: cifarray.store.exists(f"runs/{name}/job.yaml"), "the run", following)
        yield Run(cifarray.store, name)
    finally:
        cifarray("stop", name)
        wait_for(following)


def eventually(true: Callable[[], Any], seconds: float, what: str) -> None:
    """Look again and again until it is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.5)


def discovery_file(node: Node) -> Path:
    """Where Ray lists the addresses that a Prometheus is to scrape."""
    return Path(node.temp_dir) / RAYS_FOLDER / DISCOVERY_FILE


def exported(node: Node, run: Run) -> dict[tuple[str, str], dict[str, str]]:
    """Labels of what the node exports of a run, by name and split."""
    found = {}
    for target in json.loads(discovery_file(node).read_text())[0]["targets"]:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        for sample in (sample for family in families for sample in family.samples):
            if sample.labels.get("run") == run.id:
                found[sample.name, sample.labels.get("split", "")] = sample.labels
    return found


@pytest.mark.slow
def test_a_training_shows_every_registered_metric_on_its_node(
    cifarray: CommandLine, ray_node: Node
) -> None:
    with carried_out(cifarray, "train-digits", *LONG) as run:
        eventually(
            lambda: {name for name, _ in exported(ray_node, run)} == SHOWN_ON_CPU,
            FIRST_SEEN_S,
            "every metric",
        )
        shown = exported(ray_node, run)
    for (name, _), labels in shown.items():
        metric = TRAINING[name.removeprefix(RAY_PREFIX)]
        assert labels["job_name"] == "train-digits"
        assert {label for label in metric.labels if labels.get(label)} == set(metric.labels) - {
            "trial"
        }
    assert {split for name, split in shown if name == "ray_cifarray_loss"} == {
        "train",
        "validation",
    }


@dataclass(frozen=True)
class Prometheus:
    """A server that has been told what to scrape."""

    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def series(self, expression: str) -> list[dict[str, str]]:
        """Labels of what an expression gives now."""
        return [each["metric"] for each in self.ask("query", query=expression)["result"]]

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.address}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False


@pytest.fixture
def exporter(cifarray: CommandLine) -> Iterator[str]:
    """`cifarray exporter` of the tests' store; its host and port."""
    process = cifarray.start("exporter", "--host", "127.0.0.1", "--port", "0", "--interval", "1")
    assert process.stderr is not None
    try:
        yield urllib.parse.urlsplit(process.stderr.readline().split()[1]).netloc
    finally:
        process.terminate()
        assert wait_for(process).code == 0


@pytest.fixture
def prometheus(ray_node: Node, exporter: str, tmp_path: Path) -> Iterator[Prometheus]:
    """Debian's Prometheus, with the committed rules, scraping the node and the exporter."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus here")
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": "ray", "file_sd_configs": [{"files": [str(discovery_file(ray_node))]}]},
            {"job_name": "exporter", "static_configs": [{"targets": [exporter]}]},
        ],
    }
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = [program, f"--config.file={file}", f"--web.listen-address={address}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={tmp_path / 'tsdb'}"], stdout=log, stderr=log
        )
    server = Prometheus(f"http://{address}")
    try:
        eventually(server.is_ready, 30.0, (tmp_path / "log").read_text())
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_prometheus_finds_a_running_job_until_it_ends(
    cifarray: CommandLine, prometheus: Prometheus
) -> None:
    def names(run: Run) -> set[str]:
        found = prometheus.series(f'{{__name__=~".*cifarray_.*", run="{run.id}"}}')
        return {labels["__name__"] for labels in found}

    with carried_out(cifarray, "train-digits", *LONG) as run:
        of_run = {"cifarray_run_heartbeat_age_seconds", "cifarray_run_epochs", "cifarray_run_best"}
        eventually(lambda: names(run) >= SHOWN_ON_CPU | of_run, FIRST_SEEN_S, "every metric")
        (epoch,) = prometheus.series(f'ray_cifarray_epoch{{run="{run.id}"}}')
        assert epoch["job"] == "ray"  # Prometheus' own
        assert epoch["job_name"] == "train-digits"
        assert epoch["WorkerId"], "an alert tells the lives of a worker apart by it"
        assert not epoch.get("trial")
        assert prometheus.series('cifarray_runs{state="running"} == 1')
    eventually(lambda: not names(run) & SHOWN_ON_CPU, GONE_S, "the end of its series")
    of_exporter = prometheus.series('{job="exporter", __name__=~"cifarray_.*"}')
    assert {"cifarray_store_up"} < {labels["__name__"] for labels in of_exporter} <= set(STORE)
    assert prometheus.series('cifarray_runs{state="stopped"} > 0')
    groups = prometheus.ask("rules")["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(health.values()) == {"ok"} and len(health) > 6
    firing = prometheus.series('ALERTS{alertstate="firing"}')
    assert "CifarrayStoreFailing" not in {labels["alertname"] for labels in firing}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_prometheus_tells_the_trials_of_a_sweep_apart(
    cifarray: CommandLine, prometheus: Prometheus
) -> None:
    with carried_out(cifarray, "tune-digits", *LONG_SWEEP) as run:
        of_trial = f'ray_cifarray_data_wait_ratio{{run="{run.id}", trial!=""}}'
        eventually(lambda: prometheus.series(of_trial), FIRST_SEEN_S, "a trial's metrics")
        (labels,) = prometheus.series(of_trial)
        (attempt,) = run.attempt_numbers()
        trials = cifarray.store.folders(run.key("attempts", str(attempt), "trials"))
        assert labels["trial"] in trials
        assert labels["job_name"] == "tune-digits"
