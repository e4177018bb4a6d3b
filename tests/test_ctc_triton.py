"""The Triton form of the alignment equals the torch form; run in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import torch
from nast_s2x.batches import Lengths
from nast_s2x.ctc.viterbi import aligned_labels, viterbi_align_torch
from nast_s2x.ctc.viterbi_triton import viterbi_align_triton

generator = torch.Generator().manual_seed(0)
compared = impossible = repeats = 0
sizes = [(5, 9, 6, 3), (4, 1, 5, 1), (3, 12, 4, 8), (2, 7, 5, 0), (6, 20, 7, 7), (1, 33, 9, 16), (4, 6, 3, 5)]
for batch, slots, vocab, labels in sizes:
    # Scores of float noise have no ties; few labels give repeats.
    log_probs = torch.randn(batch, slots, vocab, generator=generator).log_softmax(-1)
    targets = torch.randint(0, vocab - 1, (batch, labels), generator=generator)
    lengths = torch.randint(0, slots + 1, (batch,), generator=generator)
    counts = torch.randint(0, labels + 1, (batch,), generator=generator)
    lengths[0], counts[0] = slots, labels
    blank = vocab - 1
    expected = viterbi_align_torch(log_probs, lengths, targets, counts, blank)
    found = viterbi_align_triton(log_probs, lengths, targets, counts, blank)
    assert torch.equal(found, expected), (batch, slots, vocab, labels, found, expected)
    half = viterbi_align_triton(log_probs.half(), lengths, targets, counts, blank)
    assert torch.equal(half, viterbi_align_torch(log_probs.half().float(), lengths, targets, counts, blank))
    compared += int((expected >= 0).sum())
    impossible += int(((expected < 0).all(1) & (lengths > 0)).sum())
    repeats += int((targets[:, 1:] == targets[:, :-1]).sum())
print(compared, impossible, repeats)
"""


def test_equal_to_the_torch_form() -> None:
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    root = str(Path(__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    compared, impossible, repeats = map(int, result.stdout.split())
    assert compared > 50 and impossible > 0 and repeats > 5, result.stdout
