"""Number types that a network may compute in, by the names that users write."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
"""``int8``: products of the layers alone, on CPUs; the rest in float32. Whatever the type, the normalisation of the
features, sinusoids and softmax are computed in float32 or better. In other types than fp32 a stream and an offline pass
agree up to rounding: now and then two labels that are almost equally likely change places."""


def number_type(name: str) -> torch.dtype:
    """The number type called ``name``.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in DTYPES:
        raise ValueError(f"a number type is one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]
