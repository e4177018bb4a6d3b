"""A non-autoregressive decoder over slots: the text decoder and the unit decoder are two of these."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.chunking import ChunkGeometry, SequenceLayout, attention_mask
from nast_s2x.network.attention import Angles
from nast_s2x.network.layers import DecoderLayer, DecoderLayerCache, Dropouts
from nast_s2x.network.positions import POSITION_OFFSET, rotary_angles, sinusoidal_positions

INIT_STD = 0.02
"""Standard deviation of the BERT-style initialisation of the decoders' projections."""


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of one decoder.

    ``max_positions`` counts slots, ``memory_dim`` is the width of the encoder, ``sinusoids`` the size of those that are
    added to the learned positions, ``rotary`` says whether attention has rotary positions.
    """

    vocab: int
    dim: int
    layers: int
    heads: int
    ffn_dim: int
    memory_dim: int
    max_positions: int
    sinusoids: float = 0.0
    rotary: bool = False


@dataclass
class DecoderState:
    """What a decoder remembers of a stream: caches, and inputs and encoder frames that wait for their chunk.

    Attributes:
        caches: one a layer.
        inputs: (B, P, D) slots that are not decoded yet.
        memory: (B, M, D) encoder frames that no layer has seen yet.
        num_slots: slots decoded.
        num_memory: encoder frames received.
    """

    caches: list[DecoderLayerCache] = field(default_factory=list)
    inputs: Tensor | None = None
    memory: Tensor | None = None
    num_slots: int = 0
    num_memory: int = 0


@dataclass(frozen=True)
class SlotGeometry:
    """How slots and encoder frames map to chunks for one decoder (``None``: one chunk)."""

    slots_per_chunk: int | None
    frames_per_chunk: int | None
    wait_chunks: int
    seconds_per_slot: float
    slots_per_frame: float

    @classmethod
    def text(cls, geometry: ChunkGeometry) -> SlotGeometry:
        """Slots of the text decoder."""
        return cls(
            geometry.chunk_text_slots,
            geometry.chunk_encoder_frames,
            geometry.wait_chunks,
            geometry.seconds_of_text_slots(1),
            geometry.text_upsample / geometry.pooling,
        )

    @classmethod
    def unit(cls, geometry: ChunkGeometry) -> SlotGeometry:
        """Slots of the unit decoder."""
        seconds = geometry.seconds_of_text_slots(1) / geometry.unit_upsample
        per_frame = geometry.text_upsample * geometry.unit_upsample / geometry.pooling
        return cls(geometry.chunk_unit_slots, geometry.chunk_encoder_frames, geometry.wait_chunks, seconds, per_frame)


class SlotDecoder(nn.Module):
    """Post-norm layers over slots with self-attention by chunk and cross-attention to the encoder.

    The output shares the embedding's weight: ``logits = hidden @ embed_tokens.T``.
    """

    def __init__(self, sizes: DecoderSizes, dropouts: Dropouts, name: str) -> None:
        super().__init__()
        self.dim, self.max_positions, self.name = sizes.dim, sizes.max_positions, name
        self.sinusoids, self.head_size = sizes.sinusoids, sizes.dim // sizes.heads
        self.rotary = sizes.rotary
        self.input_dropout = dropouts.residual
        self.embed_tokens = nn.Embedding(sizes.vocab, sizes.dim, padding_idx=1)
        self.embed_positions = nn.Embedding(sizes.max_positions + POSITION_OFFSET, sizes.dim, padding_idx=1)
        self.layers = nn.ModuleList(
            DecoderLayer(sizes.dim, sizes.heads, sizes.ffn_dim, dropouts, sizes.memory_dim) for _ in range(sizes.layers)
        )
        self.apply(_bert_init)

    def init_state(self) -> DecoderState:
        """State of a stream of which nothing was heard yet."""
        return DecoderState(caches=[DecoderLayerCache() for _ in self.layers])

    def glance(self, copied: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Slots (B, N, D) with the ``labels`` (B, N) shown where ``mask`` (B, N) is True (Qian et al., 2021)."""
        return torch.where(mask[..., None], math.sqrt(self.dim) * self.embed_tokens(labels), copied)

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, V), in the number type of the embedding (see :meth:`NastModel.convert_for_inference`)."""
        return F.linear(hidden.to(self.embed_tokens.weight.dtype), self.embed_tokens.weight)

    def forward(
        self,
        inputs: Tensor,
        memory: Tensor,
        slots: SlotGeometry,
        lengths: Tensor | None = None,
        memory_lengths: Tensor | None = None,
        state: DecoderState | None = None,
        final: bool = True,
    ) -> Tensor:
        """Hidden states (B, N, D) of the slots that are final.

        Args:
            inputs: (B, N, D) slots without positions; of a stream the new ones.
            memory: (B, S, D) encoder frames; of a stream the new ones.
            lengths, memory_lengths: (B,) valid slots and encoder frames; ``None``: all.
            state: a stream; slots whose chunk has to wait for the encoder are kept in it.
            final: the source ends here, nothing waits any longer.

        Raises:
            ValueError: more slots than the table of learned positions has.
        """
        start, seen, caches = 0, memory.size(1), None
        stop = inputs.size(1)
        if state is not None:
            inputs, memory = _joined(state.inputs, inputs), _joined(state.memory, memory)
            start, seen, caches = state.num_slots, state.num_memory + seen, state.caches
            stop = start + inputs.size(1) if final else self._ready(slots, seen, start, inputs.size(1))
            state.num_slots, state.num_memory = stop, seen
            state.inputs = inputs[:, stop - start :]
            state.memory = memory if stop == start else None
        if stop == start:
            return inputs[:, :0]
        x = self._embed(inputs[:, : stop - start], start, slots)
        query = SequenceLayout.plain(start, stop, slots.slots_per_chunk, device=x.device)
        key = SequenceLayout.plain(0, stop, slots.slots_per_chunk, lengths, x.device)
        frames = SequenceLayout.plain(0, seen, slots.frames_per_chunk, memory_lengths, x.device)
        self_mask, memory_mask = attention_mask(query, key), attention_mask(query, frames, slots.wait_chunks)
        angles = self._angles(query.position, seen - memory.size(1), seen, slots)
        for number, layer in enumerate(self.layers):
            x = layer(x, memory, self_mask, memory_mask, None if caches is None else caches[number], angles)
        return x

    def _angles(self, slot: Tensor, first: int, last: int, slots: SlotGeometry) -> tuple[Angles, Angles]:
        """Rotary positions of self- and cross-attention for new slots and the new encoder frames ``first .. last - 1``.

        Both are counted in slots: an encoder frame stands in the middle of the slots that cover its time.
        """
        if not self.rotary:
            return None, None
        frame = torch.arange(first, last, device=slot.device)
        query = rotary_angles(slot, self.head_size)
        key = rotary_angles((frame + 0.5) * slots.slots_per_frame - 0.5, self.head_size)
        return (query, query), (query, key)

    @staticmethod
    def _ready(slots: SlotGeometry, frames: int, start: int, pending: int) -> int:
        """Slots that may be decoded once ``frames`` encoder frames are final."""
        if slots.slots_per_chunk is None or slots.frames_per_chunk is None:
            return start
        chunks = max(0, frames // slots.frames_per_chunk - slots.wait_chunks)
        return max(start, min(start + pending, chunks * slots.slots_per_chunk))

    def check_positions(self, stop: int, slots: SlotGeometry) -> None:
        """Raise the ValueError of :meth:`forward` unless there are positions for ``stop`` slots."""
        if stop > self.max_positions and not self.rotary:
            raise ValueError(
                f"the {self.name} decoder has learned positions for {self.max_positions} slots, "
                f"{self.max_positions * slots.seconds_per_slot:g} s of source speech; "
                f"this source needs {stop} slots ({stop * slots.seconds_per_slot:g} s) or more"
            )

    def _embed(self, inputs: Tensor, start: int, slots: SlotGeometry) -> Tensor:
        stop = start + inputs.size(1)
        self.check_positions(stop, slots)
        slot = torch.arange(start, stop, device=inputs.device)
        # Rotary positions tell where a slot stands; beside them the learned ones tell the slots of one state apart.
        index = (slot % self.max_positions if self.rotary else slot) + POSITION_OFFSET
        positions = self.embed_positions(index)
        if self.sinusoids:
            positions = positions + self.sinusoids * sinusoidal_positions(index, self.dim, positions.dtype)
        return F.dropout(inputs + positions, self.input_dropout, self.training)


def _joined(past: Tensor | None, new: Tensor) -> Tensor:
    return new if past is None or past.size(1) == 0 else torch.cat([past, new], dim=1)


def _bert_init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        # Unit scale beside the normalised encoder states: shown labels enter as sqrt(D) * embedding.
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
