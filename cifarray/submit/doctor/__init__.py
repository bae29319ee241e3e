"""`cifarray doctor`: checks of this machine, a Kubernetes cluster and a store."""

from cifarray.submit.doctor.diagnosis import diagnose, diagnose_store, names
from cifarray.submit.doctor.record import FAILED, PASSED, SKIPPED, Check, Finding, Result

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
