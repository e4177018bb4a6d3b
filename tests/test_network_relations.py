"""Sums by relation: the autograd functions, and the Triton form in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nast_s2x.chunking import SequenceLayout, may_attend
from nast_s2x.network.relations import Relations, visible_places

LAYOUTS = [
    (17, 4, 4, None),  # positions, positions of a chunk, look-ahead, left chunks
    (17, 4, 9, None),  # look-ahead longer than the chunk: positions have several copies
    (19, 3, 0, None),
    (20, 4, 4, 1),
    (9, None, 0, None),
    (40, 8, 8, 2),
]


def layout(positions: int, per_chunk: int | None, lookahead: int) -> SequenceLayout:
    sequence = SequenceLayout.plain(0, positions, per_chunk)
    if per_chunk is None or not lookahead:
        return sequence
    return sequence + SequenceLayout.copies((0, positions // per_chunk), per_chunk, lookahead, positions)


@pytest.mark.parametrize(("positions", "per_chunk", "lookahead", "left"), LAYOUTS)
def test_a_relation_that_is_not_clipped_has_one_visible_key(
    positions: int, per_chunk: int | None, lookahead: int, left: int | None
) -> None:
    """The places name it, so that nothing has to be added up there."""
    sequence = layout(positions, per_chunk, lookahead)
    clip = 3
    relations = Relations.of(sequence, sequence, clip, left)
    visible = may_attend(sequence, sequence, left=left)
    places = visible_places(relations.rows, visible, relations.number)
    for query in range(len(sequence)):
        for relation in range(1, 2 * clip):
            keys = ((relations.rows[query] == relation) & visible[query]).nonzero().flatten().tolist()
            assert keys == [place for place in places[query, relation : relation + 1].tolist() if place >= 0]


def test_gradients() -> None:
    sequence = layout(11, 4, 4)
    relations = Relations.of(sequence, sequence, 2)
    size = len(sequence)
    scores = torch.randn(2, 2, size, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 2, size, size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relations.spread, (scores,))
    assert torch.autograd.gradcheck(relations.sum, (weights,))


CODE = """
import torch
from test_network_relations import LAYOUTS, layout
from nast_s2x.chunking import may_attend
from nast_s2x.network.relations import Relations, visible_places
from nast_s2x.network.relations_triton import sum_by_relation

compared = 0
for positions, per_chunk, lookahead, left in LAYOUTS:
    sequence = layout(positions, per_chunk, lookahead)
    for clip in (1, 3):
        relations = Relations.of(sequence, sequence, clip, left)
        visible = may_attend(sequence, sequence, left=left)
        places = visible_places(relations.rows, visible, relations.number)
        weights = torch.rand(2, 1, len(sequence), len(sequence)).masked_fill(~visible, 0.0)
        for queries in (len(sequence), 5):
            part = weights[:, :, :queries]
            expected = relations.first(queries).sum(part)
            found = sum_by_relation(part, relations.rows[:queries], places[:queries])
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
            compared += 1
    half = sum_by_relation(part.bfloat16(), relations.rows[:queries], places[:queries])
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.02)
print(compared)
"""


def test_triton_form() -> None:
    pytest.importorskip("triton")
    tests = Path(__file__).parent
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(len(LAYOUTS) * 4)
