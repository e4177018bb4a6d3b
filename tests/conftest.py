"""Settings of all tests: the ``slow`` marker and a fixed number of threads."""

from __future__ import annotations

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the checks marked slow too")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Run every test with one thread, also after a test that changed the number.

    Small operations are fastest on one thread, and sums of floats depend on the number of threads.
    """
    torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # for fixtures of a whole module, which are made before one_thread


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: give --slow"))
