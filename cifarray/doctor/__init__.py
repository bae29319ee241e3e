"""`cifarray doctor`: checks of this machine, a Kubernetes cluster and a store."""

from cifarray.backends.base import FAILED, PASSED, SKIPPED, Check, Finding, Result
from cifarray.doctor.checks import diagnose, diagnose_store, names

__all__ = [
    "FAILED",
    "PASSED",
    "SKIPPED",
    "Check",
    "Finding",
    "Result",
    "diagnose",
    "diagnose_store",
    "names",
]
