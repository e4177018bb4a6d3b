"""A non-autoregressive decoder over slots: the text decoder and the unit decoder are two of these."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nast_s2x.batches import Lengths
from nast_s2x.chunking import Axis, ChunkGeometry, SequenceLayout, attention_mask
from nast_s2x.errors import ConfigError
from nast_s2x.labels import PAD
from nast_s2x.network.attention import Angles, additive_mask
from nast_s2x.network.config import NastConfig
from nast_s2x.network.layers import DecoderLayer, DecoderLayerCache, Dropouts, run_layer
from nast_s2x.network.positions import POSITION_OFFSET, rotary_angles, sinusoidal_positions

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


@dataclass
class DecoderState:
    """State of a decoder in a stream: caches, and inputs and encoder frames that wait for their chunk.

    Attributes:
        caches: one a layer.
        inputs: (B, P, D) slots that are not decoded yet.
        memory: (B, M, D) encoder frames that no layer has processed yet.
        num_slots: slots decoded.
        num_memory: encoder frames received.
    """

    caches: list[DecoderLayerCache] = field(default_factory=list)
    inputs: Tensor | None = None
    memory: Tensor | None = None
    num_slots: int = 0
    num_memory: int = 0


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

    def init_state(self) -> DecoderState:
        """State at the start of a stream."""
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
        geometry: ChunkGeometry,
        lengths: Lengths | None = None,
        memory_lengths: Lengths | None = None,
        state: DecoderState | None = None,
        final: bool = True,
        places: dict[Axis, Places] | None = None,
    ) -> Tensor:
        """Hidden states (B, N, D) of the slots that are final.

        Args:
            inputs: (B, N, D) slots without positions; of a stream the new ones.
            memory: (B, S, D) encoder frames; of a stream the new ones.
            geometry: chunks of slots and encoder frames.
            lengths, memory_lengths: valid slots and encoder frames of each row; ``None``: all.
            state: of a stream; keeps the slots whose chunk needs later encoder frames.
            final: the source ends here: all slots are decoded.
            places: of whole utterances, kept for a second pass over the same slots.

        Raises:
            ConfigError: more slots than the table of learned positions has.
        """
        start, seen, caches = 0, memory.size(1), None
        stop = inputs.size(1)
        if state is not None:
            inputs, memory = _joined(state.inputs, inputs), _joined(state.memory, memory)
            start, seen, caches = state.num_slots, state.num_memory + seen, state.caches
            stop = start + inputs.size(1) if final else self._ready(geometry, seen, start, inputs.size(1))
            state.num_slots, state.num_memory = stop, seen
            state.inputs = inputs[:, stop - start :]
            state.memory = memory if stop == start else None
        if stop == start:
            return inputs[:, :0]
        x = self._embed(inputs[:, : stop - start], start, geometry)
        places = {} if places is None else places
        if self.axis not in places:
            frames = SequenceLayout.plain(0, seen, geometry.per_chunk("encoder"), memory_lengths, x.device)
            places[self.axis] = self._places(x, start, stop, lengths, frames, seen - memory.size(1), geometry)
        here = places[self.axis]
        for number, layer in enumerate(self.layers):
            cache = None if caches is None else caches[number]
            arguments = (x, memory, here.self_mask, here.memory_mask, cache, here.angles)
            x = run_layer(layer, self.checkpointed, *arguments)
        return x

    def _places(
        self,
        x: Tensor,
        start: int,
        stop: int,
        lengths: Lengths | None,
        frames: SequenceLayout,
        first_frame: int,
        geometry: ChunkGeometry,
    ) -> Places:
        """Masks and angles of the slots ``start .. stop - 1``; encoder frames are new from ``first_frame`` on."""
        per_chunk, left = geometry.per_chunk(self.axis), geometry.policy.left_chunks
        query = SequenceLayout.plain(start, stop, per_chunk, device=x.device)
        key = SequenceLayout.plain(0, stop, per_chunk, lengths, x.device)
        return Places(
            additive_mask(attention_mask(query, key, left=left), x),
            additive_mask(attention_mask(query, frames, geometry.policy.wait_chunks, left), x),
            self._angles(query.position, first_frame, len(frames), geometry),
        )

    def _angles(self, slot: Tensor, first: int, last: int, geometry: ChunkGeometry) -> tuple[Angles, Angles]:
        """Rotary positions of self- and cross-attention for new slots and the new encoder frames ``first .. last - 1``.

        Both are counted in slots: an encoder frame stands in the middle of the slots that cover its time.
        """
        if not self.rotary:
            return None, None
        frame = torch.arange(first, last, device=slot.device)
        slots_per_frame = geometry.step_ms("encoder") / geometry.step_ms(self.axis)
        query = rotary_angles(slot, self.head_size)
        key = rotary_angles((frame + 0.5) * slots_per_frame - 0.5, self.head_size)
        return (query, query), (query, key)

    def _ready(self, geometry: ChunkGeometry, frames: int, start: int, pending: int) -> int:
        """Slots that may be decoded once ``frames`` encoder frames are final."""
        slots_per_chunk, frames_per_chunk = geometry.per_chunk(self.axis), geometry.per_chunk("encoder")
        if slots_per_chunk is None or frames_per_chunk is None:
            return start
        chunks = max(0, frames // frames_per_chunk - geometry.policy.wait_chunks)
        return max(start, min(start + pending, chunks * slots_per_chunk))

    def check_positions(self, stop: int, geometry: ChunkGeometry) -> None:
        """Raise the ConfigError of :meth:`forward` unless there are positions for ``stop`` slots."""
        if stop > self.max_positions and not self.rotary:
            seconds = geometry.step_ms(self.axis) / 1000
            raise ConfigError(
                f"the {self.axis} decoder has learned positions for {self.max_positions} slots, "
                f"{self.max_positions * seconds:g} s of source speech; "
                f"this source needs {stop} slots ({stop * seconds:g} s) or more"
            )

    def _embed(self, inputs: Tensor, start: int, geometry: ChunkGeometry) -> Tensor:
        stop = start + inputs.size(1)
        self.check_positions(stop, geometry)
        slot = torch.arange(start, stop, device=inputs.device)
        # With rotary positions the learned ones only distinguish the slots of one pooled state.
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
        # Shown labels enter as sqrt(D) * embedding: this gives them the scale of the normalised encoder states.
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
