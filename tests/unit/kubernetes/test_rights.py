"""The table of rights in docs/kubernetes.md is what the manifests grant, no more and no less."""

from tests.unit.kubernetes.rights_table import documented, granted
from tests.unit.kubernetes.shipped import component, overlay


def test_the_table_says_what_the_manifests_grant():
    assert documented() == granted([*overlay("gpu"), *component("monitoring")])
