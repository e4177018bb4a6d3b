"""The state of streams, and any number of new frames as steps of one chunk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nast_s2x.batches import Lengths
from nast_s2x.chunking import ChunkGeometry, ChunkPolicy
from nast_s2x.network.output import NastOutput
from nast_s2x.network.streams import Rows, Step

if TYPE_CHECKING:
    from nast_s2x.network.nast import NastModel


class ModelState:
    """State of N streams of one policy: where they stand and the state of each part.

    Owned by the caller; one model serves many.

    Attributes:
        geometry: of the streams.
        rows: where each stream stands; offline there is none, nor any state of a part.
        pieces: (N, F, bins) each, frames that :meth:`NastModel.forward` has received and no step has taken.
        frames: feature frames received by :meth:`NastModel.forward`.
        finished: the source has ended.
    """

    def __init__(self, model: NastModel, geometry: ChunkGeometry, rows: int) -> None:
        self.geometry = geometry
        self.pieces: list[Tensor] = []
        self.frames, self.finished = 0, False
        if not geometry.policy.is_offline:
            self.rows = Rows(geometry, rows)
            self.encoder = model.encoder.init_state(geometry, rows)
            self.text = model.decoder.init_state(geometry, rows)
            self.unit = None if model.unit_decoder is None else model.unit_decoder.init_state(geometry, rows)

    def clear(self, row: int) -> None:
        """Begin a new stream in ``row``; nothing of the one before stays."""
        self.rows.restart(row)
        for part in (self.encoder, self.text, self.unit):
            if part is not None:
                part.clear(row)


Stream = tuple[ModelState, Step]
"""Streams and what they do in one step."""


def advance(
    model: NastModel, state: ModelState, fbank: Tensor, final: bool, with_asr: bool, with_units: bool
) -> NastOutput:
    """Give streams that move together new frames (N, F, bins); returns what is new and final, of any number of chunks.

    Offline, everything is computed at the end.
    """
    state.finished, state.frames = final, state.frames + fbank.size(1)
    state.pieces.append(fbank)
    if state.geometry.policy.is_offline:
        known = torch.cat(state.pieces, dim=1) if final else fbank[:, :0]
        return model.whole(known, None, state.geometry, with_asr=with_asr, with_units=with_units)
    features, rows, parts = torch.cat(state.pieces, dim=1), state.rows, []
    first = max(0, int(rows.chunk[0]) - state.geometry.policy.wait_chunks) * (state.geometry.per_chunk("text") or 0)
    if final:
        rows.frames[:] = state.frames
    size, taken = state.geometry.chunk_frames or 0, 0
    while not rows.is_done(0) and (final or taken + rows.wanted(0) <= features.size(1)):
        wanted = rows.wanted(0)
        piece = features[:, taken : taken + wanted]
        taken += piece.size(1)
        if piece.size(1) < size:
            piece = F.pad(piece, (0, 0, size - wanted, wanted - piece.size(1)))
        output = model.step(piece, [(state, rows.step())], with_asr, with_units)
        if output is not None:
            parts.append(output)
    state.pieces = [features[:, taken:]]
    return _joined(model, fbank, parts, first, with_asr, with_units)


def _joined(
    model: NastModel, like: Tensor, parts: list[NastOutput], first: int, with_asr: bool, with_units: bool
) -> NastOutput:
    """The outputs of several steps of streams that move together as one; empty tensors without any."""
    if not parts:
        geometry = model.geometry(ChunkPolicy(None))
        nothing = model.whole(like[:, :0], None, geometry, with_asr=with_asr, with_units=with_units)
        return replace(nothing, first_text_slot=first)

    def join(name: str, lengths: str) -> Tensor | None:
        kept = [
            getattr(part, name)[:, : getattr(part, lengths).longest]
            for part in parts
            if getattr(part, name) is not None
        ]
        return torch.cat(kept, dim=1) if kept else None

    def total(name: str) -> Lengths | None:
        if getattr(parts[0], name) is None:
            return None
        return Lengths((sum(getattr(part, name).longest for part in parts),) * like.size(0))

    return NastOutput(
        encoder_out=join("encoder_out", "encoder_lengths"),
        encoder_lengths=total("encoder_lengths"),
        text_logits=join("text_logits", "text_lengths"),
        text_lengths=total("text_lengths"),
        unit_logits=join("unit_logits", "unit_lengths"),
        unit_lengths=total("unit_lengths"),
        asr_logits=join("asr_logits", "encoder_lengths"),
        first_text_slot=first,
    )
