"""Where files are kept: by variable, by home, and for a user who has neither home nor name."""

import os
import stat
from pathlib import Path

import pytest

from cifarray import user_folders
from cifarray.errors import ClusterError
from tests.other_users import STRANGER, open_folder, run_as

__all__ = ["open_folder"]

NAMES = ("CIFARRAY_STATE_DIR", "CIFARRAY_CACHE", "XDG_STATE_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that names no folder; what code adds to it goes with the test."""
    for name in (*NAMES, *user_folders.USER_VARIABLES):
        monkeypatch.setenv(name, "")  # so that it comes back as it was
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", os.environ["HOME"])
    return monkeypatch


def test_each_folder_follows_its_own_variable_then_xdg_then_the_home(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare.setenv("HOME", str(tmp_path))
    assert user_folders.cache_folder() == tmp_path / ".cache" / "cifarray"
    assert user_folders.state_folder() == tmp_path / ".local" / "state" / "cifarray"
    bare.setenv("XDG_CACHE_HOME", str(tmp_path / "xc"))
    bare.setenv("XDG_STATE_HOME", str(tmp_path / "xs"))
    assert user_folders.cache_folder() == tmp_path / "xc" / "cifarray"
    assert user_folders.state_folder() == tmp_path / "xs" / "cifarray"
    bare.setenv("CIFARRAY_CACHE", str(tmp_path / "cache"))
    bare.setenv("CIFARRAY_STATE_DIR", str(tmp_path / "state"))
    assert user_folders.cache_folder() == tmp_path / "cache"
    assert user_folders.state_folder() == tmp_path / "state"


def test_a_state_folder_that_cannot_be_made_names_the_variable(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    bare.setenv("CIFARRAY_STATE_DIR", str(tmp_path / "file" / "state"))
    with pytest.raises(ClusterError, match="name another folder in CIFARRAY_STATE_DIR"):
        user_folders.state_folder()


def test_a_home_that_can_be_written_is_left_alone(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("HOME", str(tmp_path / "not made yet"))
    bare.setenv("CIFARRAY_STATE_DIR", str(tmp_path / "state"))
    user_folders.provide_home()
    assert os.environ["HOME"] == str(tmp_path / "not made yet")
    assert "XDG_CACHE_HOME" not in os.environ
    assert not (tmp_path / "state").exists()


def test_a_home_that_cannot_be_written_keeps_its_keys_and_loses_its_caches(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    bare.setenv("HOME", str(tmp_path / "file" / "home"))
    bare.setenv("CIFARRAY_STATE_DIR", str(tmp_path / "state"))
    user_folders.provide_home()
    assert os.environ["HOME"] == str(tmp_path / "file" / "home")
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR"):
        assert Path(os.environ[name]).is_relative_to(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_user_without_home_and_name_is_told_which_variable_to_set() -> None:
    state, cache, tilde, rest = run_as(
        STRANGER,
        """
        from cifarray import user_folders
        from cifarray.errors import InputError
        from cifarray.backends.ray_jobs.backend import standard_token

        tilde = lambda: user_folders.expanded("~/x")
        for ask in (user_folders.state_folder, user_folders.cache_folder, tilde):
            try:
                print(ask())
            except InputError as error:
                print(error)
        print(user_folders.home_folder(), user_folders.expanded("/a/~"), standard_token())
        """,
    ).splitlines()
    assert state.startswith("user 12345 has no home") and "in CIFARRAY_STATE_DIR" in state
    assert cache.startswith("user 12345 has no home") and "in CIFARRAY_CACHE" in cache
    assert tilde.startswith("cannot use ~/x: user 12345 has no home")
    assert rest == "None /a/~ None"


def test_a_user_without_home_and_name_gets_both_below_the_state_folder(
    open_folder: Path,
) -> None:
    folder = open_folder
    shown = run_as(
        STRANGER,
        """
        import getpass
        from pathlib import Path
        from cifarray import user_folders

        user_folders.provide_home()
        print(getpass.getuser(), Path.home(), Path.home().is_dir(), user_folders.cache_folder())
        """,
        CIFARRAY_STATE_DIR=str(folder / "state"),
    )
    home = folder / "state" / "home"
    assert shown.split() == ["uid_12345", str(home), "True", str(home / ".cache" / "cifarray")]
