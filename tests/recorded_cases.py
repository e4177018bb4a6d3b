"""Recorded outputs of the published implementation, as arguments of this library's functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PARITY = Path(__file__).parent / "fixtures" / "parity"
CASES = sorted(PARITY.glob("s2*.npz"))


def recorded_losses(path: Path, stage: str) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor, Tensor, int], float]]:
    """For each decoder of a case the first five arguments of a loss, and the value recorded for it.

    Args:
        stage: ``ctc`` or ``nmla``.
    """
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    for kind, target_name, name in (("text", "target_text", "ctc_loss"), ("unit", "target_units", "ctc_unit_loss")):
        if f"out/{kind}_log_probs" not in data:
            continue
        targets = torch.from_numpy(data[f"in/{target_name}"])
        lengths = torch.from_numpy(~data[f"out/{kind}_padding_mask"]).sum(1)
        logits = torch.from_numpy(data[f"out/{kind}_log_probs"])
        arguments = (logits, lengths, targets, (targets != 1).sum(1), meta[f"blank_{kind}"])
        yield arguments, float(data[f"out/{stage}/{name}"])
