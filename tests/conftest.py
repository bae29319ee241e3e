"""What every test shares: an empty home of its own, stores, real images and one Ray node."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cifarray.backends.local.state import Node
    from cifarray.store import Store
    from tests.s3 import S3Server

pytest_plugins = ["tests.golden_files", "tests.skip_report"]

# A suite that was started in the background ignores Ctrl-C, and would hand that on to its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent
DEVELOPERS_OWN = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_REGION",
    "CIFARRAY_STORE",
    "OMP_NUM_THREADS",
    "RAY_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_TMPDIR",
)
"""Variables of the person who runs the tests that must not reach what is tested."""
SESSION = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "KUBECONFIG": os.devnull,
}
LIBRARIES = ("store", "spec", "runs", "data", "report", "monitoring", "backends")
"""Folders of tests/unit whose packages start no process, and so leave its environment alone."""
SET_BY_OTHERS = {
    "PYTEST_CURRENT_TEST",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "TORCHINDUCTOR_CACHE_DIR",
}
"""By pytest, and by scikit-learn and torchvision when they are imported."""
MOTOS_KEYS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret"}


def pytest_configure() -> None:
    """Let a suite that is told to end still end its Ray node and servers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_environment() -> Iterator[None]:
    """Hide the developer's own AWS and Ray settings; keep the keys that CIFARRAY_TEST_S3 needs."""
    keys = {} if "CIFARRAY_TEST_S3" in os.environ else MOTOS_KEYS
    with pytest.MonkeyPatch.context() as environment:
        for name in DEVELOPERS_OWN:
            environment.delenv(name, raising=False)
        if keys:
            environment.delenv("AWS_SESSION_TOKEN", raising=False)
        for name, value in {**SESSION, **keys}.items():
            environment.setenv(name, value)
        yield


@pytest.fixture
def unchanged_environment(request: pytest.FixtureRequest) -> Iterator[None]:
    """See that no call of a library changes the process's environment, once a test has ended.

    It comes before `monkeypatch`, and so ends after that has taken back what the test itself set.
    """
    before = dict(os.environ)
    yield
    if request.path.parent.name in LIBRARIES and request.path.parent.parent.name == "unit":
        changed = {name for name, _ in os.environ.items() ^ before.items()}
        assert changed <= SET_BY_OTHERS, f"the environment has other {changed}"


@pytest.fixture(autouse=True)
def cifarray_home(
    unchanged_environment: None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Give each test its own node state, cache and default store, and run it in an empty folder."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CIFARRAY_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("CIFARRAY_CACHE", str(home / "cache"))
    monkeypatch.setenv("CIFARRAY_STORE", str(home / "store"))
    monkeypatch.chdir(home)
    return home


@pytest.fixture(scope="session")
def s3_server() -> Iterator["S3Server"]:
    """One S3 server for the session: moto's, or the one that CIFARRAY_TEST_S3 names."""
    from tests.s3 import serve_s3

    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> "S3Server":
    """The session's S3 server, with the standard AWS variables pointing to it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def moto(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator["S3Server"]:
    """A server that checks no signature, so that a proxy may change what passes."""
    from tests.s3 import S3Server, serve_moto

    if "CIFARRAY_TEST_S3" not in os.environ:
        yield request.getfixturevalue("s3")
        return
    with serve_moto() as endpoint:
        server = S3Server(endpoint, "test-key", "test-secret")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> "Store":
    """An empty store: a local directory, and then a bucket behind HTTP."""
    from cifarray.store import Store

    if request.param == "local":
        return Store.open(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3")
    return server.new_store()


@pytest.fixture(scope="session")
def session_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple["Node", Path]]:
    """One Ray node for the session, as `cifarray submit` starts it, and its state folder."""
    from cifarray.backends.local.node import end_node, ensure_node

    state = tmp_path_factory.mktemp("node")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CIFARRAY_STATE_DIR", str(state))
        node = ensure_node(print)
    yield node, state
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CIFARRAY_STATE_DIR", str(state))
        end_node()


@pytest.fixture
def ray_node(session_node: tuple["Node", Path], monkeypatch: pytest.MonkeyPatch) -> "Node":
    """The session's Ray node: commands that a test runs find it and start none of their own.

    Another process reaches it by `cifarray.backends.local.node.client_environment(ray_node)`; this
    one does not, since Ray reads part of that when some test first imports it.
    """
    node, state = session_node
    monkeypatch.setenv("CIFARRAY_STATE_DIR", str(state))
    return node


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images, in the published archives' own layouts; skips without one."""
    folder = Path(os.environ.get("CIFARRAY_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder}")
    return folder.resolve()
