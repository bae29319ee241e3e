"""Reads the table of rights in docs/kubernetes.md, and what manifests grant."""

import re
from collections.abc import Iterable
from typing import Any

from tests.unit.kubernetes.shipped import REPOSITORY

HEADER = "| who | may | on | why |"
Right = tuple[str, str, str, str]
"""(verb, group, resource, name); an empty name stands for every object."""
Holder = tuple[str, str]
"""(kind, name): a ServiceAccount, or a Role that people are bound to."""


def documented() -> dict[Holder, set[Right]]:
    """What the table says, by who holds it."""
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    rows = text.split(HEADER, 1)[1].split("\n\n", 1)[0].strip().splitlines()[1:]
    found: dict[Holder, set[Right]] = {}
    for row in rows:
        who, verbs, targets, why = (cell.strip() for cell in row.strip("|").split("|"))
        assert why, f"a right without a reason: {row}"
        for holder in _holders(who):
            found.setdefault(holder, set()).update(_rights(verbs, targets))
    return found


def granted(manifests: Iterable[dict[str, Any]]) -> dict[Holder, set[Right]]:
    """What Roles and RoleBindings give; a Role that is bound to nobody is a holder itself."""
    documents = list(manifests)
    roles = {each["metadata"]["name"]: each for each in documents if each["kind"] == "Role"}
    found: dict[Holder, set[Right]] = {
        ("ServiceAccount", each["metadata"]["name"]): set()
        for each in documents
        if each["kind"] == "ServiceAccount"
    }
    bound = set()
    for binding in (each for each in documents if each["kind"] == "RoleBinding"):
        name = binding["roleRef"]["name"]
        bound.add(name)
        for subject in binding["subjects"]:
            found[subject["kind"], subject["name"]] |= _of_role(roles[name])
    return found | {("Role", name): _of_role(roles[name]) for name in roles.keys() - bound}


def _of_role(role: dict[str, Any]) -> set[Right]:
    return {
        (verb, group, resource, name)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
    }


def _holders(cell: str) -> list[Holder]:
    kind = cell.split()[0].rstrip("s")
    return [(kind, name) for name in re.findall(r"`([^`]+)`", cell)]


def _rights(verbs: str, targets: str) -> set[Right]:
    if verbs == "nothing":
        return set()
    names = re.findall(r"`([^`]+)`", targets) or [""]
    resources = [each for each in targets.split() if not each.startswith("`")]
    return {
        (verb.strip(), group, resource, name)
        for verb in verbs.split(",")
        for resource, _, group in (each.partition(".") for each in resources)
        for name in names
    }
