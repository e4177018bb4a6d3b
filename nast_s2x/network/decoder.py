"""A non-autoregressive decoder over slots: the text decoder and the unit decoder are two of these."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.batches import Lengths
from nast_s2x.chunking import Axis, ChunkGeometry, SequenceLayout, attention_mask
from nast_s2x.errors import ConfigError
from nast_s2x.labels import PAD
from nast_s2x.network.attention import Angles, additive_mask
from nast_s2x.network.cache import ChunkCache, Ring
from nast_s2x.network.config import NastConfig
from nast_s2x.network.layers import DecoderLayer, DecoderLayerCache, Dropouts, run_layer
from nast_s2x.network.positions import POSITION_OFFSET, rotary_angles, sinusoidal_positions
from nast_s2x.network.streams import Step

INIT_STD = 0.02
"""Standard deviation of the BERT-style initialisation of the decoders' projections."""


@dataclass(frozen=True)
class Places:
    """Masks and rotary angles of slots and encoder frames, the same for all layers and both passes of glancing.

    Attributes:
        self_mask, memory_mask: visible slots and encoder frames, added to scores; ``None``: all.
        angles: rotary positions of self-attention and of cross-attention.
    """

    self_mask: Tensor | None
    memory_mask: Tensor | None
    angles: tuple[Angles, Angles]


class DecoderState:
    """State of a decoder in N streams.

    Attributes:
        slots, memory: where the chunks of slots and of encoder frames lie in the caches.
        caches: one a layer.
        waiting: (N, W, D) slots whose chunk needs later encoder frames; ``None`` at the start and without a wait.
    """

    def __init__(self, geometry: ChunkGeometry, axis: Axis, layers: int) -> None:
        left, wait = geometry.policy.left_chunks, geometry.policy.wait_chunks
        per_chunk, frames = geometry.per_chunk(axis), geometry.per_chunk("encoder")
        assert per_chunk is not None and frames is not None
        self.slots = Ring(None if left is None else left + 1, per_chunk)
        self.memory = Ring(None if left is None else left + wait + 1, frames)
        self.caches = [DecoderLayerCache(ChunkCache(self.slots), ChunkCache(self.memory)) for _ in range(layers)]
        self.waiting: Tensor | None = None

    def clear(self, row: int) -> None:
        """Forget the waiting slots of a row."""
        if self.waiting is not None:
            self.waiting[row] = 0


class SlotDecoder(nn.Module):
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

    def init_state(self, geometry: ChunkGeometry) -> DecoderState:
        """State at the start of streams."""
        return DecoderState(geometry, self.axis, len(self.layers))

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
        geometry: ChunkGeometry,
        lengths: Lengths | None = None,
        memory_lengths: Lengths | None = None,
        places: dict[Axis, Places] | None = None,
        state: DecoderState | None = None,
        step: Step | None = None,
    ) -> Tensor:
        """Hidden states (B, N, D) of slots.

        Args:
            inputs: (B, N, D) slots without positions; of streams those of one chunk.
            memory: (B, S, D) encoder frames; of streams those of one chunk, ``wait_chunks`` ahead of the slots.
            geometry: chunks of slots and encoder frames.
            lengths, memory_lengths: valid slots and encoder frames of each row; ``None``: all.
            places: of whole utterances, kept for a second pass over the same slots.
            state, step: of streams.

        Raises:
            ConfigError: more slots than the table of learned positions has.
        """
        device = inputs.device
        if state is not None and step is not None:
            # Slots that do not exist, before the first chunk and behind the end, need some position too.
            slot = step.positions(self.axis, device).clamp(0, None if self.rotary else self.max_positions - 1)
            x = self._with_positions(inputs, slot)
            return self._run(x, memory, self._places_in_streams(x, state, step), state.caches)
        if inputs.size(1) == 0:
            return inputs
        self.check_positions(inputs.size(1), geometry)
        x = self._with_positions(inputs, torch.arange(inputs.size(1), device=device))
        places = {} if places is None else places
        if self.axis not in places:
            frames = SequenceLayout.plain(0, memory.size(1), geometry.per_chunk("encoder"), memory_lengths, device)
            places[self.axis] = self._places(x, lengths, frames, geometry)
        return self._run(x, memory, places[self.axis], None)

    def _run(self, x: Tensor, memory: Tensor, here: Places, caches: list[DecoderLayerCache] | None) -> Tensor:
        for number, layer in enumerate(self.layers):
            cache = None if caches is None else caches[number]
            arguments = (x, memory, here.self_mask, here.memory_mask, cache, here.angles)
            x = run_layer(layer, self.checkpointed, *arguments)
        return x

    def queue(self, slots: Tensor, state: DecoderState, step: Step) -> Tensor:
        """The slots (N, T, D) whose turn it is, ``wait_chunks`` behind the newest ``slots`` (N, T, D)."""
        behind = step.wait * slots.size(1)
        if not behind:
            return slots
        if state.waiting is None:
            state.waiting = slots.new_zeros(slots.size(0), behind, slots.size(2))
        line = torch.cat([state.waiting, slots], dim=1)
        state.waiting = step.keep(line[:, slots.size(1) :], state.waiting)
        return line[:, : slots.size(1)]

    def _places(self, x: Tensor, lengths: Lengths | None, frames: SequenceLayout, geometry: ChunkGeometry) -> Places:
        """Masks and angles of the slots of whole utterances."""
        left = geometry.policy.left_chunks
        slots = SequenceLayout.plain(0, x.size(1), geometry.per_chunk(self.axis), lengths, x.device)
        return Places(
            additive_mask(attention_mask(slots, slots, left=left), x),
            additive_mask(attention_mask(slots, frames, geometry.policy.wait_chunks, left), x),
            self._angles(slots.position, frames.position, geometry),
        )

    def _places_in_streams(self, x: Tensor, state: DecoderState, step: Step) -> Places:
        """Masks and angles of the slots of one chunk; moves the rings to it."""
        device, behind = x.device, step.wait
        step.place(state.slots, self.axis, device)
        step.place(state.memory, "encoder", device)
        query = step.queries(self.axis, device)
        slots = step.keys(state.slots, self.axis, behind, device)
        frames = step.keys(state.memory, "encoder", 0, device)
        angles = self._angles(query.position, step.positions("encoder", device), step.geometry)
        return Places(
            additive_mask(step.mask(query, slots, state.slots, self.axis, behind), x),
            additive_mask(step.mask(query, frames, state.memory, "encoder", 0, step.wait), x),
            angles,
        )

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
        return (query, query), (query, key)

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
