import pytest


@pytest.fixture(autouse=True)
def _loopback_without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own servers are reached directly, also on a machine that reaches others through a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
