"""What all tests share: the ``slow`` marker and a fixed number of threads."""

from __future__ import annotations

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the checks marked slow too")


def pytest_configure(config: pytest.Config) -> None:
    # Operations of this size are fastest on one thread, and float sums should not depend on the number of processors.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: give --slow"))
