"""`cifarray doctor`: checks of this machine, a Kubernetes cluster and a store."""

from cifarray.backends.base import FAILED, PASSED, SKIPPED, Check, Result
from cifarray.doctor.checks import Finding, carry_out, diagnose, diagnose_store, names

__all__ = [
    "FAILED",
    "PASSED",
    "SKIPPED",
    "Check",
    "Finding",
    "Result",
    "carry_out",
    "diagnose",
    "diagnose_store",
    "names",
]
