"""Where a process may write files, even for a user without a home or an entry in /etc/passwd."""

import os
import pwd
from pathlib import Path

from cifarray.errors import ClusterError, InputError

USER_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where getpass.getuser() looks before it asks the password database."""


def state_folder() -> Path:
    """`$CIFARRAY_STATE_DIR`, or cifarray's part of the XDG state folder; for its owner alone.

    Raises: InputError for a user without a home, ClusterError if the folder cannot be made.
    """
    folder = _state_path().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(
            f"cannot write the state folder {folder}: {error.strerror}; name another folder in "
            "CIFARRAY_STATE_DIR"
        ) from error
    return folder


def cache_folder() -> Path:
    """Where downloads are kept: `$CIFARRAY_CACHE`, or cifarray's part of the XDG cache folder.

    Raises: InputError for a user without a home.
    """
    if own := os.environ.get("CIFARRAY_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base or _required_home("CIFARRAY_CACHE") / ".cache") / "cifarray"


def home_folder() -> Path | None:
    """The user's home; None if neither HOME nor the password database names one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(path: str) -> str:
    """The path with its leading `~` replaced. Raises: InputError for a user without a home."""
    found = os.path.expanduser(path)
    if found == path and (path == "~" or path.startswith("~/")):
        raise InputError(f"cannot use {path}: {_no_home()}; give an absolute path, or set HOME")
    return found


def provide_home() -> None:
    """Give this process and its children a user name and writable folders where they lack them.

    Ray, torch, matplotlib and the Hub's client ask for a user name, write into the home, and fail
    or warn where there is none. A home that is there keeps its place, so that keys are found in it.
    """
    if not any(os.environ.get(name) for name in USER_VARIABLES) and not _is_known():
        os.environ["LOGNAME"] = f"uid_{os.getuid()}"
    home = home_folder()
    named = os.environ.get("CIFARRAY_STATE_DIR") or os.environ.get("XDG_STATE_HOME")
    if not named or (home is not None and _is_writable(home)):
        return
    try:
        folder = state_folder()
        (folder / "home").mkdir(mode=0o700, exist_ok=True)
    except (ClusterError, OSError):
        return  # a command that needs the folder says so
    if home is None:
        os.environ["HOME"] = str(folder / "home")
    os.environ.setdefault("XDG_CACHE_HOME", str(folder / "home" / ".cache"))
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "home" / ".cache" / "matplotlib"))


def _state_path() -> Path:
    if own := os.environ.get("CIFARRAY_STATE_DIR"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME")
    return Path(base or _required_home("CIFARRAY_STATE_DIR") / ".local" / "state") / "cifarray"


def _required_home(variable: str) -> Path:
    home = home_folder()
    if home is None:
        raise InputError(f"{_no_home()}; name a writable folder in {variable}")
    return home


def _no_home() -> str:
    return f"user {os.getuid()} has no home directory, neither in HOME nor in the password database"


def _is_known() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _is_writable(folder: Path) -> bool:
    """Whether the folder can be written, or made."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK)
