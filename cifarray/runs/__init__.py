"""Runs in the store: their ids, status, attempts and records; how they are pulled and pruned."""

from cifarray.runs.index import check_index, write_index
from cifarray.runs.listing import RunSummary, list_runs, summaries
from cifarray.runs.liveness import Evidence, Examined, cause_of_death, examine, refuse_live
from cifarray.runs.metrics_log import read_metrics
from cifarray.runs.prune import PrunePlan, delete_run, execute_plan, plan_prune
from cifarray.runs.pull import Pulled, PullPlan, plan_pull, pull
from cifarray.runs.run import Attempt, Run, new_run_id
from cifarray.runs.status import ENDED, RunState, Status, heartbeat_age_s

__all__ = [
    "ENDED",
    "Attempt",
    "Evidence",
    "Examined",
    "PrunePlan",
    "PullPlan",
    "Pulled",
    "Run",
    "RunState",
    "RunSummary",
    "Status",
    "cause_of_death",
    "check_index",
    "delete_run",
    "examine",
    "execute_plan",
    "heartbeat_age_s",
    "list_runs",
    "new_run_id",
    "plan_prune",
    "plan_pull",
    "pull",
    "read_metrics",
    "refuse_live",
    "summaries",
    "write_index",
]
