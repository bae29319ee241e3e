"""Failures that are known by their text, in the order in which a text is held against them.

A cause stands before what follows from it.
"""

from cifarray.runs.failures.clusters import KUBERNETES, RAY
from cifarray.runs.failures.devices import DISTRIBUTED, GPUS, MEMORY
from cifarray.runs.failures.known import KnownFailure, Repeats, find_known
from cifarray.runs.failures.networks import NETWORKS
from cifarray.runs.failures.stores import STORES

KNOWN: tuple[KnownFailure, ...] = (
    *NETWORKS,
    *GPUS,
    *DISTRIBUTED,
    *MEMORY,
    *KUBERNETES,
    *RAY,
    *STORES,
)

__all__ = ["KNOWN", "KnownFailure", "Repeats", "find_known"]
