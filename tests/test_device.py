"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from nast_s2x.device import find_device
from nast_s2x.errors import ConfigError


@pytest.mark.parametrize("name", ["vulkan", "cuda:99"])
def test_a_device_that_torch_cannot_use_is_refused(name: str) -> None:
    assert find_device(name, must_exist=False) == torch.device(name)
    with pytest.raises(ConfigError, match=f"device {name} is not available"):
        find_device(name)
