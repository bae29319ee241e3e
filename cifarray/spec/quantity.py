"""Amounts of CPU and memory as Kubernetes writes them: 2, 500m, 16Gi."""

import re

UNITS = {
    "": 1.0,
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    **{unit: 1000.0**power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)},
}
GRAMMAR = re.compile(
    r"(?P<number>\d{1,18}(\.\d*)?|\.\d+)((?P<unit>[numkMGTPE]|[KMGTPE]i)|[eE](?P<power>[+-]?\d{1,2}))?",
    re.ASCII,
)
"""Of what is not negative; https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/."""


def amount(quantity: str) -> float:
    """CPUs or bytes: 500m -> 0.5, 4Gi -> 4294967296. Raises: ValueError."""
    found = GRAMMAR.fullmatch(quantity)
    if found is None:
        raise ValueError("not a quantity of Kubernetes, such as 2, 500m or 16Gi")
    if found["power"]:
        return float(found["number"]) * 10.0 ** int(found["power"])
    return float(found["number"]) * UNITS[found["unit"] or ""]
