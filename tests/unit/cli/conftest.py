"""Commands typed in this process, with their exit code and what they say."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cifarray.cli.main import main
from cifarray.store import Store


@dataclass(frozen=True)
class Typed:
    """A command that has ended: exit code, data, remarks and errors."""

    code: int
    out: str
    err: str


Type = Callable[..., Typed]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command; no command may end in a traceback."""

    def type_command(*words: str | Path) -> Typed:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Typed(int(ended.value.code or 0), out, err)

    return type_command


@pytest.fixture
def home_store(cifarray_home: Path) -> Store:
    """The store that commands use when none is named."""
    return Store.open(str(cifarray_home / "store"))
