"""Number types that a network may compute in, by the names that users write."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Whatever the type, the normalisation of the features, sinusoids and softmax are computed in float32 or better."""


def number_type(name: str) -> torch.dtype:
    """The number type called ``name``.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in DTYPES:
        raise ValueError(f"a number type is one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]
