"""The wheel works outside the checkout and puts one package at the top of site-packages."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command to its end and return what it printed."""
    ended = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout with what is installed here."""
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target]
    run(*build, REPOSITORY, cwd=REPOSITORY)
    (built,) = target.glob("cifarray-*.whl")
    return built


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that holds nothing of its own and sees this one's packages, editable ones excepted."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv)
    # A folder that a .pth file names is searched for packages; .pth files in that folder, such as
    # those that editable installations leave, are not read.
    (site_packages(venv) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


def site_packages(venv: Path) -> Path:
    """The folder that the venv's packages go into."""
    (folder,) = (venv / "lib").glob("python3*/site-packages")
    return folder


@pytest.fixture(scope="module")
def cifarray(wheel: Path, empty_venv: Path) -> Path:
    """The command that the wheel installs in the empty venv."""
    python = empty_venv / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "-q", wheel]
    run(*install, cwd=empty_venv)
    return empty_venv / "bin" / "cifarray"


def test_nothing_but_the_package_is_at_the_top_of_site_packages(
    cifarray: Path, empty_venv: Path
) -> None:
    entries = {path.name for path in site_packages(empty_venv).iterdir()} - {"borrowed.pth"}
    assert {name.partition("-")[0] for name in entries} == {"cifarray"}
    assert len(entries) == 2, entries


def test_the_wheel_is_what_runs(cifarray: Path, empty_venv: Path, tmp_path: Path) -> None:
    where = "import cifarray; print(cifarray.__file__)"
    found = run(empty_venv / "bin" / "python", "-c", where, cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(site_packages(empty_venv))


def test_the_wheel_knows_the_jobs_of_the_checkout(cifarray: Path, tmp_path: Path) -> None:
    listed = run(cifarray, "jobs", cwd=tmp_path)
    names = [path.stem for path in (REPOSITORY / "jobs").glob("*.yaml")]
    assert names and all(name in listed for name in names)


def test_the_wheel_resolves_a_sweep(cifarray: Path, tmp_path: Path) -> None:
    resolved = run(cifarray, "submit", "tune-digits", "--dry-run", cwd=tmp_path)
    assert "tune-digits" in resolved
    assert "loguniform" in resolved
    assert not list(tmp_path.iterdir())


def test_the_wheel_renders_the_manifests_of_the_checkout(cifarray: Path, tmp_path: Path) -> None:
    rendered = run(cifarray, "cluster", "render", "--overlay", "local", cwd=tmp_path)
    assert rendered == (REPOSITORY / "k8s" / "rendered" / "local.yaml").read_text()
