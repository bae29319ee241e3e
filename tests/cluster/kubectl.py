"""kubectl as tests type it, and what they wait for."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAMESPACE = "cifarray"
READY_S = 300.0
LOOK_EVERY_S = 2.0


@dataclass(frozen=True)
class Kubectl:
    """kubectl with one kubeconfig."""

    kubeconfig: Path

    def type(self, *words: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run it to its end, whatever that is."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(
            ["kubectl", *words], input=stdin, env=environment, capture_output=True, text=True
        )

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        """Run it; it has to succeed without a warning."""
        ended = self.type(*words, stdin=stdin)
        assert ended.returncode == 0, ended.stderr
        assert "Warning" not in ended.stderr, ended.stderr
        return ended.stdout

    def json(self, *words: str) -> Any:
        """What it prints, as JSON."""
        return json.loads(self(*words, "-o", "json"))

    def pods(self, labels: str) -> list[dict[str, Any]]:
        """Pods of our namespace."""
        found: list[dict[str, Any]] = self.json("-n", NAMESPACE, "get", "pods", "-l", labels)[
            "items"
        ]
        return found

    def kill(self, pod: dict[str, Any]) -> None:
        """End a pod as its node's failure would: at once, with no time to say goodbye."""
        name = pod["metadata"]["name"]
        self.type("-n", NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force")

    def is_ready(self, labels: str) -> bool:
        """Whether there are pods with these labels, and all of them are ready."""
        pods = self.pods(labels)
        return bool(pods) and all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in conditions(pod))
            and not pod["metadata"].get("deletionTimestamp")
            for pod in pods
        )


def conditions(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """A pod's conditions."""
    found: list[dict[str, Any]] = pod["status"].get("conditions", [])
    return found


def until(what: str, happened: Callable[[], Any], patience_s: float = READY_S) -> Any:
    """Wait until something is true; what it returned."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := happened():
            return found
        time.sleep(LOOK_EVERY_S)
    pytest.fail(f"waited {patience_s:.0f} s without success for {what}")
