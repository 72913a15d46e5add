"""The real cluster, for the tests that ask for it. Everything is installed by the demo's own steps."""

from pathlib import Path

import pytest

from staging import installed, neighbour, stage

__all__ = ["installed", "neighbour", "stage"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)
