"""Makes a virtual environment with the lowest versions that pyproject.toml allows."""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = REPOSITORY / "pyproject.toml"
BOUND = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)(?:,|$)")
"""A requirement with a lower bound: its name and the bound."""


def lower_bounds(requirements: Iterable[str]) -> dict[str, str]:
    """The lowest version that each requirement allows, by normalized name."""
    found = {}
    for requirement in requirements:
        bound = BOUND.match(requirement)
        if bound is None:
            raise ValueError(f"{requirement} has no lower bound; write it as NAME>=VERSION,<NEXT")
        found[_normal(bound[1])] = bound[2]
    return found


def too_low(bounds: dict[str, str], resolved: Iterable[str]) -> list[str]:
    """Bounds that no installation can have, since another package needs a higher version."""
    pins = dict(line.strip().split("==") for line in resolved if "==" in line)
    versions = {_normal(name): version for name, version in pins.items()}
    return [
        f"{name}>={bound}, but the lowest that can be installed is {versions[name]}"
        for name, bound in bounds.items()
        if Version(versions[name]) != Version(bound)
    ]


def main() -> None:
    """Resolve, compare the bounds with the result, and install."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uv", type=Path, help="the uv to use")
    parser.add_argument("venv", type=Path, help="the virtual environment to create")
    options = parser.parse_args()
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    python = project["requires-python"].removeprefix(">=")
    uv, pins = options.uv.absolute(), options.venv / "lowest.txt"
    make = [uv, "venv", "--clear", "--no-python-downloads", "--python", python, options.venv]
    subprocess.run(make, check=True)
    resolve = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", PROJECT]
    resolve += ["--python-version", python, "--resolution", "lowest-direct"]
    subprocess.run([*resolve, "--output-file", pins], check=True)
    bounds = lower_bounds(project["dependencies"])
    if wrong := too_low(bounds, pins.read_text("utf-8").splitlines()):
        sys.exit(
            "error: pyproject.toml allows versions that cannot be installed:  " + "; ".join(wrong)
        )
    pins.write_text("".join(f"{name}=={bound}\n" for name, bound in bounds.items()), "utf-8")
    install = [uv, "pip", "install", "--python", options.venv / "bin" / "python"]
    install += ["--constraints", pins, "--editable", f"{REPOSITORY}[dev]"]
    subprocess.run(install, check=True)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
