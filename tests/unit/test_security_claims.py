"""SECURITY.md names the test of each claim: those tests exist."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CLAIM = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
CLAIMS = sorted(set(CLAIM.findall((REPOSITORY / "SECURITY.md").read_text())))


def test_security_md_makes_claims() -> None:
    assert len(CLAIMS) > 20


@pytest.mark.parametrize(("file", "name"), CLAIMS)
def test_the_test_of_a_claim_exists(file: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (REPOSITORY / file).read_text(), re.MULTILINE)
