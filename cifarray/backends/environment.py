"""How a driver is started: its command line, and what it and its workers find in their environment.

Secrets are given only as the path of a private file.
"""

import configparser
import io
import os
import shlex
import sys

from cifarray.backends.local.state import write_private
from cifarray.digests import content_sha256
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.store import Store
from cifarray.user_folders import state_folder

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray's own name for how the Jobs API tells a driver of its runtime environment."""
STOP_WAIT_S = 60
"""How long a stopped driver may take to close its run before it is killed."""
KEYS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}
NO_SECRETS = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED")
LOCAL_NAMES = (
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""Paths and names without secrets, of use on this machine only."""
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
}
"""glibc keeps freed activations instead of giving them back to the kernel, page by page, at every
step. Ray Train runs the loop in a thread, whose own arena would hold no array of this size."""
CREDENTIALS_PREFIX = "credentials-"


def driver_command(run_id: str, store: StoreSpec, here: bool = False) -> str:
    """The driver's command line; `exec` makes it the process that a stop asks to end."""
    words = [sys.executable if here else "python", "-m", "cifarray.driver", run_id]
    words += ["--store", store.uri]
    if store.endpoint:
        words += ["--endpoint", store.endpoint]
    if store.region:
        words += ["--region", store.region]
    return f"exec {shlex.join(words)}"


def job_environment(profile: Profile, store: Store, here: bool) -> dict[str, str]:
    """Variables for the driver and its workers; `here` says that they run on this machine."""
    environment = run_environment(profile)
    if store.uri.startswith("s3://"):
        environment |= _aws_environment(here)
    return environment


def run_environment(profile: Profile) -> dict[str, str]:
    """Variables that a run's processes need wherever they are."""
    return {
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{profile.worker_start_timeout_s:g}",
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
        **ALLOCATOR,
    }


def remove_credentials() -> None:
    """Delete the files that runs of an ended node read their keys from."""
    for path in state_folder().glob(f"{CREDENTIALS_PREFIX}*"):
        path.unlink(missing_ok=True)


def _aws_environment(here: bool) -> dict[str, str]:
    """What boto3 needs to find on the other side what it finds here."""
    names = (*NO_SECRETS, *LOCAL_NAMES) if here else NO_SECRETS
    environment = {name: os.environ[name] for name in names if os.environ.get(name)}
    if here and os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        environment.pop("AWS_PROFILE", None)  # keys in the environment win over it here too
        environment["AWS_SHARED_CREDENTIALS_FILE"] = _write_credentials()
    return environment


def _write_credentials() -> str:
    """Put this shell's keys into a file for its owner alone; the path of it."""
    values = {field: os.environ[name] for name, field in KEYS.items() if os.environ.get(name)}
    content = configparser.RawConfigParser()
    content["default"] = values
    text = io.StringIO()
    content.write(text)
    mark = content_sha256(values["aws_access_key_id"])[:12]
    path = state_folder() / f"{CREDENTIALS_PREFIX}{mark}"
    write_private(path, text.getvalue())
    return str(path)
