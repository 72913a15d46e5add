"""For every test. A cluster is never started here: e2e tests ask for it by a fixture of their own."""

from collections.abc import Generator

import pytest
from hypothesis import settings

settings.register_profile("inflight", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("inflight")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Keep looptime from making an event loop, that nobody would close, for a test that needs none."""
    if pyfuncitem.get_closest_marker("looptime") is None:
        pyfuncitem.funcargs.pop("event_loop_policy", None)
    return (yield)
