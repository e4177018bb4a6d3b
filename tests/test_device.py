"""Devices by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nast_s2x.device import find_device, without_memory
from nast_s2x.errors import ConfigError


@pytest.mark.parametrize("name", ["vulkan", "cuda:99"])
def test_a_device_that_torch_cannot_use_is_refused(name: str) -> None:
    assert find_device(name, must_exist=False) == torch.device(name)
    with pytest.raises(ConfigError, match=f"device {name} is not available"):
        find_device(name)


def test_a_system_is_loaded_without_the_compiler() -> None:
    """Networks are compared with their weights before they take memory; drawing values there would import it."""
    code = (
        "import sys; from nast_s2x.inference import load_system\n"
        "load_system('examples/espeak_fr_en/speech_bundle'); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_networks_without_memory_have_names_and_shapes() -> None:
    with without_memory():
        built = torch.nn.Sequential(
            torch.nn.Linear(10**6, 10**6), torch.nn.Embedding(10**6, 10**6), torch.nn.LayerNorm(3)
        )
    assert all(parameter.is_meta for parameter in built.parameters())
    assert {name: tuple(value.shape) for name, value in built.state_dict().items()}["1.weight"] == (10**6, 10**6)
    assert not torch.nn.Linear(2, 2).weight.is_meta and torch.nn.Linear(2, 2).weight.abs().sum() > 0
