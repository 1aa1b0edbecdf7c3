"""What the tests of both transports stand on."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from servers.certificates import Authority


@pytest.fixture(autouse=True)
def no_proxies_from_outside(monkeypatch):
    """The machine's own settings are no part of a test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy", "no_grpc_proxy", "request_method"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def opened():
    """What this opens is closed when the test ends, in reverse."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def within(request):
    """Asserts that what stands inside takes at most so many seconds, and the module's `GRACE`."""

    @contextmanager
    def within(seconds):
        start = time.monotonic()
        yield
        assert time.monotonic() - start < seconds + request.module.GRACE

    return within


@pytest.fixture
def in_background():
    """Runs a call on another thread and returns its future."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))
