"""A training whose workers are promised GPUs that Ray counts and torch does not see.

`python -m tests.integration.blind_workers STORE FOLDER` starts a Ray node of its own in FOLDER, and
prints how the training ends.
"""

import os
import sys

import ray

from cifarray.backends.environment import run_environment
from cifarray.errors import RunFailedError
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.store.layout import Place
from cifarray.training.ray_train import train
from cifarray.training.worker import Work
from tests.digit_sessions import small_job

RUN_ID = "few-digits-1"
PLACE = Place(RUN_ID, 1)


def main(store: Store, folder: str) -> None:
    """Train on two workers with a GPU each."""
    profile = Profile(name="p", kind="local", workers=2, cpus_per_worker=0.5, gpus_per_worker=1)
    os.environ |= run_environment(profile)
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, _temp_dir=folder)
    spec = RunSpec(
        run_id=RUN_ID,
        job=small_job(),
        profile=profile,
        world_size=2,
        dataset_digest="0" * 64,
        validation_rows=16,
        validation_sha256="0" * 64,
        submitted_at="2026-11-23T10:00:00+00:00",
        versions={},
    )
    try:
        train(Work(store.spec, spec, PLACE))
    except RunFailedError as error:
        print(f"ENDED {error}")


if __name__ == "__main__":
    main(Store.open(sys.argv[1]), sys.argv[2])
