"""What all tests share: the ``slow`` marker and a fixed number of threads."""

from __future__ import annotations

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the checks marked slow too")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Operations of this size are fastest on one thread, and float sums depend on the number of threads: every test
    begins with one, whatever the one before it (a command with --threads, say) has left."""
    torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # for what fixtures of a whole module compute


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: give --slow"))
