"""Amounts of CPU, memory and bytes: read as Kubernetes writes them, and written for a person."""

import re
from decimal import Decimal

UNITS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
GRAMMAR = re.compile(
    r"(?P<number>\d{1,18}(\.\d*)?|\.\d+)((?P<unit>[numkMGTPE]|[KMGTPE]i)|[eE](?P<power>[+-]?\d{1,2}))?",
    re.ASCII,
)
"""Of what is not negative; https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/."""


def amount(quantity: str | int) -> Decimal:
    """CPUs or bytes: 500m -> 0.5, 4Gi -> 4294967296. Raises: ValueError."""
    found = GRAMMAR.fullmatch(str(quantity))
    if found is None:
        raise ValueError("not a Kubernetes quantity, such as 2, 500m or 16Gi")
    return Decimal(found["number"]).scaleb(int(found["power"] or 0)) * UNITS[found["unit"] or ""]


def written_bytes(size_bytes: float | Decimal, *, binary: bool = False) -> str:
    """Bytes in the largest fitting unit, as in 12.3 MB, or 12.3 MiB as Kubernetes counts memory."""
    base, units = (
        (1024, ("KiB", "MiB", "GiB", "TiB")) if binary else (1000, ("kB", "MB", "GB", "TB"))
    )
    value, written = float(size_bytes), f"{size_bytes:.0f} B"
    for unit in units:
        if value < base:
            break
        value /= base
        written = f"{value:.1f} {unit}"
    return written
