"""Long faults on the real cluster (`make faults`, not part of `make test`): the same stage as for tests/e2e."""

from pathlib import Path

import pytest

from staging import installed, stage

__all__ = ["installed", "stage"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)
