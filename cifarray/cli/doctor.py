"""`cifarray doctor`: what is amiss with this machine, a cluster or a store, and what helps."""

from typing import TYPE_CHECKING

import typer

from cifarray.cli import output
from cifarray.cli.options import ClusterOption, JsonOption, open_store

if TYPE_CHECKING:
    from cifarray.submit.doctor import Finding


def doctor(cluster: ClusterOption = "local", json: JsonOption = False) -> None:
    """Check all that runs depend on, and say what to do about what fails.

    \b
    Example:  cifarray doctor
              cifarray doctor --cluster kubernetes
    """
    from cifarray.spec.load import load_profile
    from cifarray.submit.doctor import FAILED, diagnose, names

    profile = load_profile(cluster)
    store = open_store(None, None, cluster if profile.kind == "local" else "local")
    width = max(map(len, names(profile)))
    findings = []
    for found in diagnose(profile, store):
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
