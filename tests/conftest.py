"""Fixtures that every test may use: an isolated home, free ports, the test data."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def mfh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, so that no test sees what another one or a person has made."""
    for name in [name for name in os.environ if name.startswith("MFH_") and name not in KEPT]:
        monkeypatch.delenv(name)
    home = tmp_path / "mfh"
    monkeypatch.setenv("MFH_HOME", str(home))
    return home


# What tells the tests where their own tools and data are.
KEPT = frozenset({"MFH_TEST_DATA", "MFH_MOTO_SERVER", "MFH_TEST_REDIS", "MFH_TEST_POSTGRES"})


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the test data (``kuairand``, ``kuairand_fixture``, ``open_bandit``)."""
    folder = Path(os.environ.get("MFH_TEST_DATA") or CHECKOUT.parent / "shared" / "data").resolve()
    if not folder.is_dir():
        give_up(f"the test data is not at {folder}; name its folder in MFH_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives ports of 127.0.0.1 that nothing listens on, a different one at each call."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in given:
                given.add(port)
                return port

    return find


def give_up(reason: str) -> None:
    """Skip for want of something, or fail where nothing may be skipped (CI)."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
