"""`cifarray doctor`: what is wrong with this machine, a cluster or a store, and how to fix it."""

from typing import TYPE_CHECKING

import typer

from cifarray.cli import output
from cifarray.cli.options import (
    ClusterOption,
    EndpointOption,
    JsonOption,
    StoreOption,
    open_store,
)

if TYPE_CHECKING:
    from cifarray.doctor.checks import Finding


def doctor(
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
) -> None:
    """Check everything that runs depend on, and say how to fix what fails.

    With --store or --endpoint only the store is checked: its server's features are probed again.

    \b
    Example:  cifarray doctor
              cifarray doctor --cluster kubernetes
              cifarray doctor --store s3://bucket/cifarray --endpoint https://s3.example.com
    """
    from cifarray.backends.base import FAILED
    from cifarray.doctor.checks import diagnose, diagnose_store, names
    from cifarray.spec.load import load_profile

    profile = load_profile(cluster)
    if store is not None or endpoint is not None:
        wanted = diagnose_store(open_store(store, endpoint, cluster))
    else:
        wanted = diagnose(profile, lambda: open_store(None, None, cluster))
    width = max(map(len, names(profile)))
    findings = []
    for found in wanted:
        findings.append(found)
        if not json:
            result = found.result
            told = f"{result.finding}; {result.remedy}" if result.remedy else result.finding
            output.print_line(f"{result.outcome:<8} {found.check:<{width}}  {told}")
    failed = sum(found.result.outcome == FAILED for found in findings)
    if json:
        output.print_json([_as_json(found) for found in findings])
    elif failed:
        output.say(f"{failed} of {len(findings)} checks failed")
    if failed:
        raise typer.Exit(1)


def _as_json(found: "Finding") -> dict[str, str]:
    result = found.result
    return {
        "check": found.check,
        "outcome": result.outcome,
        "finding": result.finding,
        "remedy": result.remedy,
    }
