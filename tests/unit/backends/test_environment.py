"""What a job's environment holds, and that no key is in it."""

import configparser
import json
from pathlib import Path

import pytest

from cifarray.backends.choice import backend_of
from cifarray.backends.environment import job_environment, remove_credentials
from cifarray.runs import Run
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.store import Access, Store

PROFILE = Profile(name="local", kind="local", worker_start_timeout_s=77.0)
BUCKET = Store.open("s3://bucket/prefix", "http://127.0.0.1:9000")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret%key")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-session-token")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_PROFILE", "another")


def test_keys_travel_as_the_path_of_a_private_file() -> None:
    environment = job_environment(PROFILE, BUCKET, here=True)
    assert not any(
        secret in json.dumps(environment)
        for secret in ("the-access-key", "the-secret%key", "the-session-token")
    )
    path = Path(environment["AWS_SHARED_CREDENTIALS_FILE"])
    assert path.stat().st_mode & 0o777 == 0o600
    found = configparser.RawConfigParser()
    found.read(path)
    assert dict(found["default"]) == {
        "aws_access_key_id": "the-access-key",
        "aws_secret_access_key": "the-secret%key",
        "aws_session_token": "the-session-token",
    }
    assert environment["AWS_REGION"] == "eu-north-1"
    assert "AWS_PROFILE" not in environment
    remove_credentials()
    assert not path.exists()


def test_boto3_reads_the_file_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    environment = job_environment(PROFILE, BUCKET, here=True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = botocore.session.get_session().get_credentials()
    assert found is not None
    assert (found.access_key, found.secret_key, found.token) == (
        "the-access-key",
        "the-secret%key",
        "the-session-token",
    )


def test_without_keys_the_users_own_files_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    environment = job_environment(PROFILE, BUCKET, here=True)
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == str(tmp_path / "credentials")
    assert environment["AWS_PROFILE"] == "another"


def test_another_machine_gets_the_region_and_brings_its_own_keys() -> None:
    environment = job_environment(PROFILE, BUCKET, here=False)
    aws = {name for name in environment if name.startswith("AWS_")}
    assert aws <= {"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"}


def test_the_region_of_the_profile_goes_to_another_machine_before_this_shells() -> None:
    """As an argument of the driver: the environment of another machine is not this shell's."""
    bucket = Store.open("s3://bucket", None, Access("eu-north-1"))
    run = Run(bucket, "a-run")
    store = StoreSpec(uri=BUCKET.uri, region="us-west-2")
    far = PROFILE.model_copy(
        update={"store": store, "address": "10.0.0.5:6379", "dashboard": "http://10.0.0.5:8265"}
    )
    assert backend_of(far).drivers_store(run).region == "us-west-2"
    here = far.model_copy(update={"dashboard": "http://127.0.0.1:8265"})
    assert backend_of(here).drivers_store(run).region == "eu-north-1"
    assert job_environment(far, BUCKET, here=False)["AWS_REGION"] == "eu-north-1"


def test_a_local_store_needs_no_keys(tmp_path: Path) -> None:
    environment = job_environment(PROFILE, Store.open(str(tmp_path)), here=True)
    assert not any(name.startswith("AWS_") for name in environment)


def test_train_is_told_to_show_its_runs_and_to_be_patient(tmp_path: Path) -> None:
    environment = job_environment(PROFILE, Store.open(str(tmp_path)), here=True)
    assert environment["RAY_TRAIN_ENABLE_STATE_TRACKING"] == "1"
    assert environment["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "77"
