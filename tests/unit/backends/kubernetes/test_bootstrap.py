"""The Job that makes the store's keys: once, whatever the answers, and whoever else does it."""

import base64
import json
from typing import Any

import pytest

from cifarray.backends.kubernetes.bootstrap import ROOT, RUNS, RUNS_NAME, make_secrets, root_secret
from cifarray.backends.kubernetes.client import Kube
from tests.unit.backends.kubernetes.api_server import Answer, ApiServer, Asked

SECRETS = "/api/v1/namespaces/cifarray/secrets"


def encoded(values: dict[str, str]) -> dict[str, str]:
    """As the API server gives a Secret's values."""
    return {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}


def key_of_runs(root: dict[str, str]) -> str:
    return str(json.loads(root["users.json"])["accessAccounts"][RUNS_NAME]["secret"])


@pytest.mark.parametrize("lost", [Answer(cut=True, done=True), Answer(503, {}, done=True)])
def test_both_secrets_are_made_once_though_the_answers_are_lost(
    api: ApiServer, kube: Kube, lost: Answer
) -> None:
    api.script(f"POST {SECRETS}", lost, lost)
    make_secrets(kube)
    made: dict[str, Any] = {name: api.objects[f"{SECRETS}/{name}"] for name in (ROOT, RUNS)}
    key = made[RUNS]["stringData"]["AWS_SECRET_ACCESS_KEY"]
    assert key == key_of_runs(made[ROOT]["stringData"])
    assert api.requests("POST") == [f"POST {SECRETS}"] * 2


def test_the_keys_of_a_faster_job_are_taken(api: ApiServer, kube: Kube) -> None:
    theirs = root_secret()

    def be_faster(asked: Asked) -> None:
        if asked.method == "POST" and f"{SECRETS}/{ROOT}" not in api.objects:
            api.put(f"{SECRETS}/{ROOT}", data=encoded(theirs))

    api.on_request = be_faster
    make_secrets(kube)
    made = api.objects[f"{SECRETS}/{RUNS}"]["stringData"]
    assert made["AWS_SECRET_ACCESS_KEY"] == key_of_runs(theirs)
    assert api.objects[f"{SECRETS}/{ROOT}"]["data"] == encoded(theirs)


def test_secrets_that_are_there_stay(api: ApiServer, kube: Kube) -> None:
    for name in (ROOT, RUNS):
        api.put(f"{SECRETS}/{name}", data=encoded(root_secret()))
    api.forbid(f"POST {SECRETS}")
    make_secrets(kube)
    assert api.requests("POST") == []
