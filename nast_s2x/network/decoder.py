"""A non-autoregressive decoder over slots: the text decoder and the unit decoder are two of these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.batches import Lengths
from nast_s2x.chunking import Axis, ChunkGeometry, SequenceLayout, SlotRates, attention_mask
from nast_s2x.errors import ConfigError
from nast_s2x.labels import PAD
from nast_s2x.network.attention import Angles, Sight, additive_mask, with_caches
from nast_s2x.network.cache import ChunkCache, Ring
from nast_s2x.network.config import NastConfig
from nast_s2x.network.layers import DecoderLayer, Dropouts, run_layer
from nast_s2x.network.linear import Packable, PackedWeight
from nast_s2x.network.positions import POSITION_OFFSET, rotary_angles, sinusoidal_positions
from nast_s2x.network.streams import Step, joined_rows

ENCODER: Axis = "encoder"
INIT_STD = 0.02
"""Standard deviation of the BERT-style initialisation of the decoders' projections."""


@dataclass(frozen=True)
class Places:
    """Masks and rotary angles of slots and encoder frames, the same for all layers and both passes of glancing.

    Attributes:
        slots, frames: what self-attention and cross-attention see.
        angles: rotary positions of self-attention and of cross-attention.
    """

    slots: list[Sight]
    frames: list[Sight]
    angles: tuple[Angles, Angles]


class DecoderState:
    """State of a decoder in N streams.

    Attributes:
        rows: N.
        slots, memory: where the chunks of slots and of encoder frames lie in the caches.
        slot_caches, memory_caches: one a layer.
        waiting: (N, W, D) slots whose chunk needs later encoder frames; ``None`` at the start and without a wait.
    """

    def __init__(self, geometry: ChunkGeometry, axis: Axis, layers: int, rows: int) -> None:
        self.rows = rows
        left, wait = geometry.policy.left_chunks, geometry.policy.wait_chunks
        per_chunk, frames = geometry.per_chunk(axis), geometry.per_chunk("encoder")
        assert per_chunk is not None and frames is not None
        self.slots = Ring(None if left is None else left + 1, per_chunk)
        self.memory = Ring(None if left is None else left + wait + 1, frames)
        self.slot_caches = [ChunkCache(self.slots) for _ in range(layers)]
        self.memory_caches = [ChunkCache(self.memory) for _ in range(layers)]
        self.waiting: Tensor | None = None

    def clear(self, row: int) -> None:
        """Forget the waiting slots of a row."""
        if self.waiting is not None:
            self.waiting[row] = 0


class SlotDecoder(Packable):
    """Post-norm layers over slots with self-attention by chunk and cross-attention to the encoder.

    The output shares the embedding's weight: ``logits = hidden @ embed_tokens.T``.
    """

    checkpointed = False
    """Compute the layers again in the backward pass, see :meth:`NastModel.checkpoint_activations`."""

    def __init__(self, config: NastConfig, dropouts: Dropouts, axis: Axis) -> None:
        super().__init__()
        unit = axis == "unit"
        self.axis: Axis = axis
        self.dim, self.head_size = config.decoder_dim, config.decoder_dim // config.decoder_heads
        self.max_positions = config.max_unit_positions if unit else config.max_text_positions
        self.sinusoids = config.unit_sinusoids if unit else 0.0
        self.rotary = config.relative_positions or (unit and config.unit_rotary)
        self.input_dropout = dropouts.residual
        vocab, layers = (config.unit_vocab, config.unit_layers) if unit else (config.text_vocab, config.decoder_layers)
        self.embed_tokens = nn.Embedding(vocab, self.dim, padding_idx=PAD)
        self.embed_positions = nn.Embedding(self.max_positions + POSITION_OFFSET, self.dim, padding_idx=1)
        self.layers = nn.ModuleList(
            DecoderLayer(self.dim, config.decoder_heads, config.decoder_ffn_dim, dropouts, config.encoder_dim)
            for _ in range(layers)
        )
        self.apply(_bert_init)

    def init_state(self, geometry: ChunkGeometry, rows: int) -> DecoderState:
        """State at the start of ``rows`` streams."""
        return DecoderState(geometry, self.axis, len(self.layers), rows)

    def glance(self, copied: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Slots (B, N, D) with the ``labels`` (B, N) shown where ``mask`` (B, N) is True (Qian et al., 2021)."""
        return torch.where(mask[..., None], math.sqrt(self.dim) * self.embed_tokens(labels), copied)

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, V), in the number type of the embedding (see :meth:`NastModel.convert_for_inference`)."""
        hidden = hidden.to(self.embed_tokens.weight.dtype)
        if self.packed is not None and self.packed.fits(hidden):
            return self.packed.multiply(hidden)
        return F.linear(hidden, self.embed_tokens.weight)

    def pack(self) -> None:
        """As :meth:`Packable.pack`, for the output layer."""
        self.packed = PackedWeight.of(self.embed_tokens.weight)

    def forward(
        self,
        inputs: Tensor,
        memory: Tensor,
        geometry: ChunkGeometry,
        lengths: Lengths | None = None,
        memory_lengths: Lengths | None = None,
        places: dict[Axis, Places] | None = None,
        streams: Sequence[tuple[DecoderState, Step]] = (),
    ) -> Tensor:
        """Hidden states (B, N, D) of slots.

        Args:
            inputs: (B, N, D) slots without positions; of streams those of one chunk.
            memory: (B, S, D) encoder frames; of streams those of one chunk, ``wait_chunks`` ahead of the slots.
            geometry: chunks of slots and encoder frames.
            lengths, memory_lengths: valid slots and encoder frames of each row; ``None``: all.
            places: of whole utterances, kept for a second pass over the same slots.
            streams: parts of the rows.

        Raises:
            ConfigError: more slots than the table of learned positions has.
        """
        device = inputs.device
        if streams:
            # Slots that do not exist, before the first chunk and behind the end, need some position too.
            slot = joined_rows(step.positions(self.axis, device) for _, step in streams)
            x = self._with_positions(inputs, slot.clamp(0, None if self.rotary else self.max_positions - 1))
            return self._run(x, memory, self._places_in_streams(x, streams), [state for state, _ in streams])
        if inputs.size(1) == 0:
            return inputs
        self.check_positions(inputs.size(1), geometry)
        x = self._with_positions(inputs, torch.arange(inputs.size(1), device=device))
        places = {} if places is None else places
        if self.axis not in places:
            frames = SequenceLayout.plain(0, memory.size(1), geometry.per_chunk("encoder"), memory_lengths, device)
            places[self.axis] = self._places(x, lengths, frames, geometry)
        return self._run(x, memory, places[self.axis], ())

    def _run(self, x: Tensor, memory: Tensor, here: Places, states: Sequence[DecoderState]) -> Tensor:
        for number, layer in enumerate(self.layers):
            slots = with_caches(here.slots, [state.slot_caches[number] for state in states])
            frames = with_caches(here.frames, [state.memory_caches[number] for state in states])
            x = run_layer(layer, self.checkpointed, x, memory, slots, frames, here.angles)
        return x

    def queue(self, slots: Tensor, streams: Sequence[tuple[DecoderState, Step]]) -> Tensor:
        """The slots (N, T, D) whose turn it is, ``wait_chunks`` behind the newest ``slots`` (N, T, D)."""
        size = slots.size(1)
        behind = streams[0][1].wait * size
        if not behind:
            return slots
        for state, _ in streams:
            if state.waiting is None:
                state.waiting = slots.new_zeros(state.rows, behind, slots.size(2))
        line = torch.cat(
            [joined_rows(step.take(state.waiting) for state, step in streams if state.waiting is not None), slots],
            dim=1,
        )
        first = 0
        for state, step in streams:
            rows = slice(first, first := first + step.rows)
            state.waiting = step.keep(line[rows, size:], state.waiting)
        return line[:, :size]

    def _places(self, x: Tensor, lengths: Lengths | None, frames: SequenceLayout, geometry: ChunkGeometry) -> Places:
        """Masks and angles of the slots of whole utterances."""
        left = geometry.policy.left_chunks
        slots = SequenceLayout.plain(0, x.size(1), geometry.per_chunk(self.axis), lengths, x.device)
        own = additive_mask(attention_mask(slots, slots, left=left), x)
        crossed = additive_mask(attention_mask(slots, frames, geometry.policy.wait_chunks, left), x)
        angles = self._angles(slots.position, frames.position, geometry)
        return Places([Sight(x.size(0), own)], [Sight(x.size(0), crossed)], angles)

    def _places_in_streams(self, x: Tensor, streams: Sequence[tuple[DecoderState, Step]]) -> Places:
        """Masks and angles of the slots of one chunk of each row; moves the rings to it."""
        device, slots, frames = x.device, [], []
        for state, step in streams:
            step.place(state.slots, self.axis, device)
            step.place(state.memory, ENCODER, device)
            masks = (
                step.mask(self.axis, state.slots, self.axis, device),
                step.mask(self.axis, state.memory, ENCODER, device),
            )
            slots.append(Sight(step.rows, additive_mask(masks[0], x)))
            frames.append(Sight(step.rows, additive_mask(masks[1], x)))
        if not self.rotary:
            return Places(slots, frames, (None, None))
        slot, frame = (
            joined_rows(step.positions(axis, device) for _, step in streams) for axis in (self.axis, ENCODER)
        )
        return Places(slots, frames, self._angles(slot, frame, streams[0][1].geometry))

    def _angles(self, slot: Tensor, frame: Tensor, geometry: ChunkGeometry) -> tuple[Angles, Angles]:
        """Rotary positions of self- and cross-attention for slots (T,) and encoder frames (M,), or (B, T) and (B, M).

        Both are counted in slots: an encoder frame stands in the middle of the slots that cover its time.
        """
        if not self.rotary:
            return None, None
        slots_per_frame = geometry.step_ms("encoder") / geometry.step_ms(self.axis)
        query = rotary_angles(slot, self.head_size)
        key = rotary_angles((frame + 0.5) * slots_per_frame - 0.5, self.head_size)
        if slot.dim() == 2:  # one axis for the heads
            query, key = query[:, None], key[:, None]
        own, other = (query.cos(), query.sin()), (key.cos(), key.sin())
        return (own, own), (own, other)

    def max_frames(self, rates: SlotRates) -> int | None:
        """Feature frames of the longest source that there are positions for; ``None``: no limit."""
        if self.rotary:
            return None
        per_state = rates.length(self.axis, rates.frames_per_state)
        return self.max_positions // per_state * rates.frames_per_state

    def check_positions(self, stop: int, geometry: ChunkGeometry) -> None:
        """Raise the ConfigError of :meth:`forward` unless there are positions for ``stop`` slots."""
        if stop > self.max_positions and not self.rotary:
            seconds = geometry.step_ms(self.axis) / 1000
            raise ConfigError(
                f"the {self.axis} decoder has learned positions for {self.max_positions} slots, "
                f"{self.max_positions * seconds:g} s of source speech; "
                f"this source needs {stop} slots ({stop * seconds:g} s) or more"
            )

    def _with_positions(self, inputs: Tensor, slot: Tensor) -> Tensor:
        """Inputs (B, N, D) of the decoder at ``slot`` (N,) or (B, N)."""
        # With rotary positions the learned ones only distinguish the slots of one pooled state.
        index = (slot % self.max_positions if self.rotary else slot) + POSITION_OFFSET
        positions = self.embed_positions(index)
        if self.sinusoids:
            positions = positions + self.sinusoids * sinusoidal_positions(index, self.dim, positions.dtype)
        return F.dropout(inputs + positions, self.input_dropout, self.training)


def _bert_init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        # Shown labels enter as sqrt(D) * embedding: this gives them the scale of the normalised encoder states.
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
