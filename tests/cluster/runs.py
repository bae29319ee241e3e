"""Runs on a test's cluster, as their submitter and as the cluster's administrator see them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cifarray.spec.load import load_profile
from tests.cluster.kubectl import Kubectl, until
from tests.integration.command_line import CommandLine, Ended

PROFILE = "kubernetes-local"
SHORT = ("--set", "train.epochs=6", "--set", "train.global_batch_size=16")
"""Some seconds of training on two workers: time enough to kill something in its middle."""
STARTS_S = 420.0
GOES_ON_S = 600.0


@dataclass(frozen=True)
class Runs:
    """The runs of one cluster."""

    cifarray: CommandLine
    kubectl: Kubectl

    def submit(self, name: str, *words: str | Path, on: Path | str = PROFILE) -> str:
        """Train on the digits with two workers, and follow that to its end unless detached."""
        return self.cifarray(
            "submit", "train-digits", "--cluster", on, *SHORT, "--name", name, *words
        )

    def begin(self, name: str, *words: str | Path, on: Path | str = PROFILE) -> None:
        """Submit a run and leave it alone in the middle of its training."""
        self.submit(name, *words, "--detach", on=on)
        until("two epochs", lambda: self.epochs_done(name) >= 2, STARTS_S)

    def resume(self, name: str) -> dict[str, Any]:
        """Resume a run and follow it to its end; its report."""
        self.cifarray("resume", name, "--cluster", PROFILE)
        return self.report(name)

    def status(self, name: str) -> dict[str, Any]:
        """What `cifarray status` says of a run."""
        found: dict[str, Any] = json.loads(self.asked_status(name).out)
        return found

    def asked_status(self, name: str) -> Ended:
        """The same while the store or the cluster may be away."""
        return self.cifarray.type("status", name, "--cluster", PROFILE, "--json")

    def state(self, name: str) -> str:
        """A run's state; empty while its store does not answer."""
        asked = self.asked_status(name)
        return str(json.loads(asked.out)["state"]) if asked.code == 0 else ""

    def reason(self, name: str) -> str:
        """What `status` says a run waits for or died of."""
        return str(self.status(name)["reason"] or "")

    def wait_until_lost(self, name: str, patience_s: float = 180.0) -> str:
        """Wait until a run is called lost; why."""
        until("the run to be called lost", lambda: self.state(name) == "lost", patience_s)
        return self.reason(name)

    def wait_until_finished(self, name: str, patience_s: float = GOES_ON_S) -> dict[str, Any]:
        """Wait until a run has finished by itself; its report."""
        over = ("finished", "failed", "stopped")
        until("the run to finish", lambda: self.state(name) in over, patience_s)
        status = self.status(name)
        assert status["state"] == "finished", status["error"]
        return self.report(name)

    def epochs_done(self, name: str) -> int:
        """Epochs that a run has behind it."""
        return int((self.status(name)["progress"] or {}).get("done") or 0)

    def report(self, name: str) -> dict[str, Any]:
        """A finished run's report."""
        found: dict[str, Any] = json.loads(
            self.cifarray("report", name, "--cluster", PROFILE, "--json")
        )
        return found

    def pods(self, name: str, node_type: str | None = None) -> list[dict[str, Any]]:
        """The pods of a run's own Ray cluster."""
        type_label = f",ray.io/node-type={node_type}" if node_type else ""
        return self.kubectl.pods(f"cifarray/run={name}{type_label}")


def same_figures(report: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two runs ended with the same metrics."""
    return all(report[split] == other[split] for split in ("validation", "test"))


def profile_file(folder: Path, **fields: Any) -> Path:
    """The small cluster's profile with other fields; those of its kubernetes section too."""
    values = load_profile(PROFILE).model_dump(mode="json", exclude_unset=True)
    known = type(load_profile(PROFILE).kubernetes).model_fields  # type: ignore[union-attr]
    section = {name: fields.pop(name) for name in list(fields) if name in known}
    values = {**values, **fields, "kubernetes": {**values["kubernetes"], **section}}
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
