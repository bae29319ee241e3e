"""Let the drivers on a cluster close their runs before it goes."""

import time
from typing import TYPE_CHECKING

from cifarray.cli import output
from cifarray.errors import ClusterError

if TYPE_CHECKING:
    from cifarray.backends.ray_jobs.client import RayJobs

STOP_TIMEOUT_S = 75.0


def stop_jobs(jobs: "RayJobs", live: list[str]) -> None:
    """Ask these jobs to end, and wait a while until they have."""
    for job_id in live:
        output.say(f"stopping {job_id} ...")
        jobs.stop(job_id)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    try:
        while live and jobs.live_jobs() and time.monotonic() < deadline:
            time.sleep(0.5)
    except ClusterError as error:
        output.warn(str(error))
