"""The script that builds the image says which base it was built on, as far as the builder can tell.

The builder is a script: no registry answers here, and only a registry knows a real digest.
"""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOLD, GIVEN = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
BUILDER = """#!/bin/sh
case "$1" in
pull) [ -n "$TOLD" ] ;;
image) [ -z "$TOLD" ] || echo "registry.example/python@$TOLD" ;;
build) printf '%s\\n' "$@" > "$ASKED" ;;
esac
"""


@pytest.mark.parametrize(
    ("base", "told", "digest", "remark"),
    [
        (f"registry.example:5000/python@{GIVEN}", TOLD, GIVEN, ""),
        ("registry.example:5000/python:3.11", TOLD, TOLD, f"registry.example:5000/python@{TOLD}"),
        ("registry.example:5000/python", "", "unknown", "5000/python@sha256:DIGEST"),
        (None, "", "unknown", "BASE_IMAGE=docker.io/library/python@sha256:DIGEST"),
    ],
)
def test_the_digest_of_the_base_is_recorded(
    base: str | None, told: str, digest: str, remark: str, tmp_path: Path
) -> None:
    builder, asked = tmp_path / "builder", tmp_path / "asked"
    builder.write_text(BUILDER, "utf-8")
    builder.chmod(0o755)
    variables = {"BUILDER": str(builder), "ASKED": str(asked), "TOLD": told}
    if base is not None:
        variables["BASE_IMAGE"] = base
    ended = subprocess.run(
        [REPOSITORY / "scripts" / "image.sh", "cifarray:test"],
        env={**os.environ, **variables},
        capture_output=True,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stderr
    words = asked.read_text("utf-8").splitlines()
    assert f"BASE_DIGEST={digest}" in words
    assert ("is not pinned" in ended.stderr) is bool(remark)
    assert remark in ended.stderr
    assert (f"BASE_IMAGE={base}" in words) is (base is not None)
