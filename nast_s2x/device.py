"""Devices and number types by the names that users write. torch is imported on first use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nast_s2x.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
"""Name on the command line -> name in torch.

``int8`` applies to the products of linear layers on CPUs; everything else is float32 then. For every type, feature
normalisation, sinusoids and softmax are computed in float32 or better. In types other than fp32 a stream and an offline
pass agree up to rounding: two labels of almost equal probability can change places.
"""


def find_device(name: str | torch.device, must_exist: bool = True) -> torch.device:
    """Return the device called ``name``: ``cpu``, ``cuda``, ``cuda:N``, or SimulEval's ``gpu`` for ``cuda``.

    Args:
        must_exist: check that torch can use the device on this machine.

    Raises:
        ConfigError: the name is not that of a device, or torch cannot use the device.
    """
    import torch

    if isinstance(name, str) and (name == "gpu" or name.startswith("gpu:")):
        name = "cuda" + name[3:]
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"a device is cpu, cuda or cuda:N, got {name!r}") from None
    if must_exist and device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            found = f"finds {count} CUDA devices here"
            raise ConfigError(f"device {name} is not available: torch {torch.__version__} {found}")
    elif must_exist:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ImportError):
            raise ConfigError(f"device {name} is not available in torch {torch.__version__} here") from None
    return device


def parse_dtype(name: str) -> torch.dtype:
    """Return the number type called ``name``, a key of :data:`DTYPES`.

    Raises:
        ConfigError: there is no number type of that name.
    """
    import torch

    if name not in DTYPES:
        raise ConfigError(f"a number type is one of {', '.join(DTYPES)}, got {name!r}")
    dtype: torch.dtype = getattr(torch, DTYPES[name])
    return dtype


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Networks built in the block have parameters on the meta device: names and shapes, no memory, no initial values.

    Drawing initial values on that device would import torch's compiler, which takes seconds.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            is_initial = getattr(func, "__module__", "") == "torch.nn.init"
            if is_initial or getattr(func, "__name__", "") in ("normal_", "uniform_"):
                return args[0] if args else kwargs["tensor"]
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Undrawn():
        yield
