"""Run ids: unique, sortable by time, and names that Kubernetes takes."""

import re
import secrets
from datetime import UTC, datetime

LONGEST = 47
"""What KubeRay takes as the name of a RayJob."""
SUFFIX = re.compile(r"-(\d{6}-\d{6})-[0-9a-f]{4}$")


def new_run_id(job_name: str) -> str:
    """`<job>-<yymmdd>-<hhmmss>-<4 hex>`, a DNS-1035 label of at most 47 characters; UTC."""
    suffix = f"-{datetime.now(UTC):%y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    name = re.sub(r"[^a-z0-9]+", "-", job_name.lower()).strip("-") or "job"
    name = name if name[0].isalpha() else f"job-{name}"
    return name[: LONGEST - len(suffix)].rstrip("-") + suffix


def is_run_id(name: str) -> bool:
    """Whether `name` may be a run's id, and so a folder of the store and here."""
    return re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) is not None


def submitted_order(run_id: str) -> tuple[str, str]:
    """Sorts ids by the time in them; ids without one come before all others."""
    found = SUFFIX.search(run_id)
    return (found.group(1) if found else "", run_id)
