"""Common functions of the benchmark's parts: device and number type of the flags, times, memory."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nast_s2x.device import find_device, parse_dtype
from nast_s2x.errors import ConfigError
from nast_s2x.network import NastModel

FLOATING = ("fp32", "bf16", "fp16")
"""Number types of parts that have no 8-bit form."""


@dataclass(frozen=True)
class Setting:
    """Device and number type of a measurement.

    Attributes:
        device: where it runs.
        name: number type as on the command line.
    """

    device: torch.device
    name: str

    @classmethod
    def of(cls, args: argparse.Namespace, part: str, dtypes: tuple[str, ...] = FLOATING) -> Setting:
        """The setting of ``--device``, ``--dtype`` and ``--threads``.

        Args:
            dtypes: number types that the part can measure.
        Raises:
            ConfigError: a number type or device that the part or the machine does not have.
        """
        if args.dtype not in dtypes:
            raise ConfigError(f"--dtype of {part} must be one of {', '.join(dtypes)}, but is {args.dtype}")
        device = find_device(args.device)
        if args.dtype == "int8" and device.type != "cpu":
            raise ConfigError(f"--dtype int8 is for CPUs, but --device is {args.device}")
        torch.set_num_threads(args.threads)
        return cls(device, args.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of inputs; int8 applies to products alone and takes float32."""
        return torch.float32 if self.name == "int8" else parse_dtype(self.name)

    def convert(self, model: NastModel) -> NastModel:
        """The model on the device, in the number type, for inference."""
        return model.to(self.device).convert_for_inference(parse_dtype(self.name))

    def describe(self) -> dict[str, str]:
        """Entries of the result."""
        return {"device": device_name(self.device), "dtype": self.name}


def device_name(device: torch.device) -> str:
    """Name of a GPU as CUDA reports it; for other devices torch's name, such as ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def device_of(module: nn.Module) -> torch.device:
    """Device of a module's parameters."""
    return next(module.parameters()).device


def now(device: torch.device) -> float:
    """Seconds on a monotonic clock, read after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that one call of ``work`` takes, its work on the device included."""
    begun = now(device)
    work()
    return now(device) - begun


def peak_bytes(device: torch.device) -> int:
    """Peak memory: allocated on a GPU, else the largest resident memory of this process.

    A GPU's peak is counted since the start of the process or :func:`torch.cuda.reset_peak_memory_stats`; the peak of
    the process always since its start. 0 where the system reports none.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # A process inherits ru_maxrss from the one that started it; Linux keeps the peak of this program alone in VmHWM.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
