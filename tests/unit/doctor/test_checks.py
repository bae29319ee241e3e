"""The whole of a diagnosis: every check once, none of them an error."""

from base64 import b64encode

import pytest

from cifarray.backends.base import FAILED, PASSED, SKIPPED
from cifarray.backends.choice import backend_of
from cifarray.doctor.checks import diagnose, names
from cifarray.store import Store
from tests.s3 import S3Server
from tests.unit.backends.kubernetes.api_server import ApiServer
from tests.unit.backends.kubernetes.kube_requests import profile


def local() -> Store:
    return Store.open("store")


def encoded(server: S3Server) -> dict[str, str]:
    """A server's keys as a Secret has them."""
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    return {name: b64encode(value.encode()).decode() for name, value in keys.items()}


@pytest.mark.usefixtures("nowhere")
def test_without_a_cluster_one_check_fails_and_all_others_are_skipped() -> None:
    found = list(diagnose(profile(), local))
    assert [each.check for each in found] == names(profile())
    assert found[0].result.outcome == FAILED
    assert {each.result.outcome for each in found[1:]} == {SKIPPED}


@pytest.mark.usefixtures("api")
def test_an_empty_namespace_fails_the_store_once_and_says_what_makes_it() -> None:
    found = {each.check: each.result for each in diagnose(profile(), local)}
    assert list(found) == names(profile())
    assert found["API server"].outcome == PASSED
    assert "cifarray cluster up" in found["store"].finding
    assert {found[name].outcome for name in found if name.startswith("store:")} == {SKIPPED}


def test_a_store_outside_the_cluster_is_looked_at_with_the_keys_of_the_secret(
    api: ApiServer, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3.new_store()
    api.put("/api/v1/namespaces/cifarray/secrets/cifarray-store", data=encoded(s3))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    outside = profile(store={"uri": store.uri, "endpoint": s3.endpoint}, store_service=None)
    found = {each.check: each.result for each in diagnose(outside, local)}
    assert {found[name].outcome for name in found if name.startswith("store")} == {PASSED}


def test_every_check_has_a_name_of_its_own_and_needs_one_before_it() -> None:
    known: list[str] = []
    for check in backend_of(profile()).checks(local):
        assert check.name not in known
        assert check.needs is None or check.needs in known
        known.append(check.name)
