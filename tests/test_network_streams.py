"""Many streams in one step: rows that join, pause, end and are used again give what each gives alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_network import small_model
from torch.nn import functional as F

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.network import NastModel
from nast_s2x.network.streams import ENDLESS, Rows

MODEL = small_model()
RELATIVE = small_model(relative_positions=True, max_text_positions=1, max_unit_positions=6)
BOUNDED = [
    ChunkPolicy(320, left_chunks=2),
    ChunkPolicy(160, 80, wait_chunks=1, left_chunks=1),
    ChunkPolicy(160, 400, wait_chunks=2, left_chunks=0),
    ChunkPolicy(320, 0, left_chunks=3),
]


class Source:
    """One stream of a test: its features, how much of them a step has taken, and what came out."""

    def __init__(self, frames: int) -> None:
        self.fbank = torch.randn(1, frames, 80, dtype=torch.float64)
        self.taken = 0
        self.text: list[torch.Tensor] = []
        self.unit: list[torch.Tensor] = []

    def piece(self, rows: Rows, row: int) -> torch.Tensor:
        """The frames of the next step, with zeros around them; the end of the source is known with its last frame."""
        wanted, size = rows.wanted(row), rows.geometry.chunk_frames
        new = self.fbank[:, self.taken : self.taken + wanted]
        self.taken += new.size(1)
        if self.taken == self.fbank.size(1):
            rows.frames[row] = self.taken
        return F.pad(new, (0, 0, size - wanted, wanted - new.size(1)))

    def take(self, output: object, row: int) -> None:
        for kind in ("text", "unit"):
            count = getattr(output, f"{kind}_lengths").host[row]
            getattr(self, kind).append(getattr(output, f"{kind}_logits")[row : row + 1, :count])

    def check(self, model: NastModel, policy: ChunkPolicy) -> None:
        whole = model(self.fbank, None, policy)
        for got, expected in ((self.text, whole.text_logits), (self.unit, whole.unit_logits)):
            torch.testing.assert_close(torch.cat(got, dim=1), expected, atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("policy", BOUNDED, ids=str)
@pytest.mark.parametrize("model", [MODEL, RELATIVE], ids=["absolute", "relative"])
def test_rows_of_one_state(model: NastModel, policy: ChunkPolicy) -> None:
    """Three rows; at each step a random part of them moves; an ended row is cleared and used for the next stream."""
    torch.manual_seed(5)
    random = np.random.default_rng(2)
    waiting = [Source(frames) for frames in (150, 1, 333, 64, 97, 200, 33, 16)]
    state, seats, done = model.init_state(policy, 3), [None, None, None], 0
    while done < 8:
        for row in range(3):
            if seats[row] is None and waiting and random.random() < 0.5:
                seats[row] = waiting.pop()
                state.clear(row)
        moving = np.array([seat is not None and random.random() < 0.7 for seat in seats])
        if not moving.any():
            continue
        size = state.geometry.chunk_frames
        nothing = torch.randn(1, size, 80, dtype=torch.float64)
        pieces = [seats[row].piece(state.rows, row) if moving[row] else nothing for row in range(3)]
        output = model.step(torch.cat(pieces), [(state, state.rows.step(moving))])
        for row in np.flatnonzero(moving):
            if output is not None:
                seats[row].take(output, row)
            if state.rows.is_done(row):
                seats[row].check(model, policy)
                seats[row], done = None, done + 1


@torch.no_grad()
@pytest.mark.parametrize("policy", [*BOUNDED, ChunkPolicy(320), ChunkPolicy(160, 80, wait_chunks=1)], ids=str)
def test_states_that_step_together(policy: ChunkPolicy) -> None:
    """Streams with a state each; at each step a random part of them moves."""
    torch.manual_seed(6)
    random = np.random.default_rng(3)
    sources = [Source(frames) for frames in (150, 1, 333, 64, 97)]
    states = [RELATIVE.init_state(policy) for _ in sources]
    left = list(range(len(sources)))
    while left:
        chosen = [number for number in left if random.random() < 0.7]
        if not chosen:
            continue
        fbank = torch.cat([sources[number].piece(states[number].rows, 0) for number in chosen])
        output = RELATIVE.step(fbank, [(states[number], states[number].rows.step()) for number in chosen])
        for row, number in enumerate(chosen):
            if output is not None:
                sources[number].take(output, row)
            if states[number].rows.is_done(0):
                sources[number].check(RELATIVE, policy)
                left.remove(number)


def test_steps_of_a_row_by_hand() -> None:
    """Chunks of 320 ms with 400 ms look-ahead: two steps take in 40 frames, 8 and 32, before chunk 0."""
    rows = Rows(MODEL.geometry(ChunkPolicy(320, 400, wait_chunks=1)), 2)
    assert rows.chunk.tolist() == [-2, -2] and rows.wanted(0) == 8
    step = rows.step(np.array([True, False]))
    assert step.chunk.tolist() == [-2, -2] and rows.chunk.tolist() == [-1, -2]
    assert (rows.wanted(0), rows.wanted(1)) == (32, 8)
    for _ in range(2):
        step = rows.step(np.array([True, False]))
    assert (
        step.chunk.tolist() == [0, -2]
        and step.new("encoder").tolist() == [8, 0]
        and step.new("text").tolist() == [0, 0]
    )
    rows.frames[0] = 39
    assert not rows.is_done(0)
    step = rows.step(np.array([True, False]))
    assert step.new("encoder").tolist() == [2, 0] and step.new("text").tolist() == [4, 0]
    assert not rows.is_done(0)
    step = rows.step(np.array([True, False]))
    assert step.new("encoder").tolist() == [0, 0] and step.new("text").tolist() == [1, 0]
    assert step.new("unit").tolist() == [6, 0]
    assert rows.is_done(0)
    rows.restart(0)
    assert rows.chunk.tolist() == [-2, -2] and rows.frames.tolist() == [ENDLESS, ENDLESS]


@torch.no_grad()
def test_memory_of_a_stream_does_not_grow() -> None:
    policy = ChunkPolicy(160, 80, wait_chunks=1, left_chunks=2)
    state, sizes = RELATIVE.init_state(policy), []
    for _ in range(40):
        RELATIVE(torch.randn(1, 50, 80, dtype=torch.float64), None, policy, state=state, final=False)
        caches = [*state.encoder.caches, *state.text.slot_caches, *state.text.memory_caches, *state.unit.slot_caches]
        held = [cache.keys for cache in caches] + [state.encoder.pending, state.text.waiting, state.encoder.left_frames]
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in held if tensor is not None))
    assert len(set(sizes[2:])) == 1 and sum(piece.size(1) for piece in state.pieces) < 16
