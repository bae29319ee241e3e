"""What is installed: requirements with hashes agree with constraints, and bounds are honest."""

import functools
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.lowest import lower_bounds, too_low

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
FILES = sorted((REPOSITORY / "requirements").glob("*.txt"))
IMAGE = REPOSITORY / "requirements" / "image.txt"
LINUX = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "python_version": "3.11",
    "python_full_version": "3.11.7",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


@functools.cache
def requirements_of(name: str) -> tuple[Requirement, ...]:
    """What an installed package says that it needs."""
    return tuple(map(Requirement, requires(name) or ()))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Version by package, of a file of constraints or of requirements with hashes."""
    lines = path.read_text("utf-8").splitlines()
    found = (re.fullmatch(r"([\w.-]+)==(\S+)(?: \\)?", line) for line in lines)
    return {normal(pin[1]): pin[2] for pin in found if pin}


def needed(requirement: str, machine: str) -> Iterator[str]:
    """The names of a package and all that it needs on a machine, as what is installed says."""
    waiting, seen = [Requirement(requirement)], set[tuple[str, str]]()
    while waiting:
        wanted = waiting.pop()
        yield normal(wanted.name)
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) in seen:
                continue
            seen.add((wanted.name, extra))
            environment = {**LINUX, "platform_machine": machine, "extra": extra}
            for each in requirements_of(wanted.name):
                if each.marker is None or each.marker.evaluate(environment):
                    waiting.append(each)


def test_there_are_requirements_for_the_image_and_for_building() -> None:
    assert [path.name for path in FILES] == ["build.txt", "image.txt"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_requirement_has_a_hash_and_the_version_of_constraints(path: Path) -> None:
    constraints = pins(REPOSITORY / "constraints.txt")
    assert pins(path).items() <= constraints.items()
    entries = re.split(r"\n(?=\S)", path.read_text("utf-8").split("\n", 1)[1].rstrip())
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    assert len(entries) == len(pins(path))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_image_gets_everything_that_the_project_needs(machine: str) -> None:
    wanted = {name for each in PROJECT["dependencies"] for name in needed(each, machine)}
    assert wanted - pins(IMAGE).keys() == set()


def test_the_dockerfile_installs_nothing_without_a_hash() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    installs = [part for line in lines for part in line.split("&&") if " install " in part]
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes --only-binary :all:" in install or "--no-index" in install


def test_every_dependency_has_a_lower_bound() -> None:
    assert len(lower_bounds(PROJECT["dependencies"])) == len(PROJECT["dependencies"])
    with pytest.raises(ValueError, match="numpy<3 has no lower bound"):
        lower_bounds(["numpy<3"])


def test_a_bound_that_another_package_raises_is_said() -> None:
    bounds = lower_bounds(["pydantic>=2.10,<3", "PyYAML>=6.0,<7", "ray[tune]>=2.60,<3"])
    resolved = ["pydantic==2.13.5", "pyyaml==6.0.0", "ray==2.60.0", "# via ray"]
    assert too_low(bounds, resolved) == [
        "pydantic>=2.10, but the lowest that can be installed is 2.13.5"
    ]
