"""The chunk-based non-autoregressive encoder (Ma et al., 2024, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nast_s2x.batches import Lengths
from nast_s2x.chunking import ChunkGeometry, SequenceLayout, attention_mask
from nast_s2x.network.attention import Sight, additive_mask, with_caches
from nast_s2x.network.cache import ChunkCache, Ring
from nast_s2x.network.config import NastConfig
from nast_s2x.network.layers import Dropouts, EncoderLayer, run_layer
from nast_s2x.network.positions import POSITION_OFFSET, sinusoidal_positions
from nast_s2x.network.relations import Relations, ring_relations
from nast_s2x.network.streams import Step, joined_rows
from nast_s2x.network.subsampling import LEFT_FRAMES, ConvSubsampler


class EncoderState:
    """State of the encoder in N streams.

    Attributes:
        rows: N.
        ring: where chunks lie in the caches.
        caches: keys and values of the computed frames, one cache a layer.
        left_frames: (N, 6, bins) feature frames that the next convolution windows need; ``None`` at the start.
        pending: (N, L, D) inputs, positions added, of the frames that are the look-ahead of the next chunk.
    """

    def __init__(self, geometry: ChunkGeometry, layers: int, rows: int) -> None:
        self.rows = rows
        left, per_chunk = geometry.policy.left_chunks, geometry.per_chunk("encoder")
        assert per_chunk is not None
        self.ring = Ring(None if left is None else left + 1, per_chunk, geometry.lookahead_encoder_frames)
        self.caches = [ChunkCache(self.ring) for _ in range(layers)]
        self.left_frames: Tensor | None = None
        self.pending: Tensor | None = None

    def left(self, fbank: Tensor) -> Tensor:
        """``left_frames``, zeros at the start; ``fbank`` (B, F, bins) are the next frames."""
        if self.left_frames is None:
            self.left_frames = fbank.new_zeros(self.rows, LEFT_FRAMES, fbank.size(2))
        return self.left_frames

    def ahead(self, x: Tensor) -> Tensor:
        """``pending``, zeros at the start; ``x`` (B, S, D) are the next inputs."""
        if self.pending is None:
            self.pending = x.new_zeros(self.rows, self.ring.extra, x.size(2))
        return self.pending

    def clear(self, row: int) -> None:
        """Forget what a row holds of its features; caches need nothing, because their entries are masked."""
        for tensor in (self.left_frames, self.pending):
            if tensor is not None:
                tensor[row] = 0


class ChunkEncoder(nn.Module):
    """Convolutional subsampling, then post-norm layers with attention to own and earlier chunks and the look-ahead.

    The look-ahead of a chunk is a hard copy of the next frames, appended behind the sequence and visible to this chunk
    only; copies are computed anew for every chunk and dropped after the last layer.
    """

    checkpointed = False
    """Compute the layers again in the backward pass, see :meth:`NastModel.checkpoint_activations`."""

    def __init__(self, config: NastConfig) -> None:
        super().__init__()
        dim = config.encoder_dim
        dropouts = Dropouts(config.dropout, config.attention_dropout, config.activation_dropout)
        self.dim, self.clip = dim, config.max_relative_position
        self.absolute_positions = not config.relative_positions
        self.max_position_shift = config.max_position_shift
        self.conv_layers = ConvSubsampler(config.input_dim, config.conv_channels, dim)
        self.layernorm_embedding = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            EncoderLayer(dim, config.encoder_heads, config.encoder_ffn_dim, self.clip, dropouts)
            for _ in range(config.encoder_layers)
        )

    def init_state(self, geometry: ChunkGeometry, rows: int) -> EncoderState:
        """State at the start of ``rows`` streams."""
        return EncoderState(geometry, len(self.layers), rows)

    def forward(
        self,
        fbank: Tensor,
        lengths: Lengths | None,
        geometry: ChunkGeometry,
        streams: Sequence[tuple[EncoderState, Step]] = (),
    ) -> Tensor:
        """Feature frames (B, F, bins) -> encoder frames (B, S, D): all of them, or those of one chunk of streams.

        Args:
            lengths: valid *encoder* frames of each row; ``None``: all.
            streams: parts of the rows of ``fbank``, which holds the frames of one step.
        """
        if streams:
            return self._step(fbank, streams)
        inputs = self._inputs(self.conv_layers(fbank)[0])
        inputs = self._with_positions(inputs, torch.arange(inputs.size(1), device=inputs.device)[None])
        count, per_chunk, device = inputs.size(1), geometry.per_chunk("encoder"), inputs.device
        if count == 0:
            return inputs
        query = key = SequenceLayout.plain(0, count, per_chunk, lengths, device)
        x = inputs
        if per_chunk is not None and geometry.lookahead_encoder_frames:
            chunks, width = (0, count // per_chunk), geometry.lookahead_encoder_frames
            copies = SequenceLayout.copies(chunks, per_chunk, width, count, lengths, device)
            query = key = query + copies
            x = torch.cat([x, inputs.index_select(1, copies.position)], dim=1)
        left = geometry.policy.left_chunks
        mask = additive_mask(attention_mask(query, key, left=left), x)
        return self._run(x, [Sight(x.size(0), mask, Relations.of(query, key, self.clip, left))], (), count)

    def _step(self, fbank: Tensor, streams: Sequence[tuple[EncoderState, Step]]) -> Tensor:
        """Encoder frames (N, E, D) of the chunk of each row, from ``chunk_frames`` feature frames of each."""
        ring, device = streams[0][0].ring, fbank.device
        left = joined_rows(step.take(state.left(fbank)) for state, step in streams)
        x, rest = self.conv_layers(fbank, left)
        x = self._inputs(x)
        if self.absolute_positions:
            ahead = joined_rows(step.positions("encoder", device, ring.extra) for _, step in streams)
            x = self._with_positions(x, ahead.clamp(min=0))
        if ring.extra:
            x = torch.cat([joined_rows(step.take(state.ahead(x)) for state, step in streams), x], dim=1)
        first = 0
        for state, step in streams:
            rows = slice(first, first := first + step.rows)
            state.left_frames = step.keep(rest[rows], state.left_frames)
            state.pending = step.keep(x[rows, ring.per_chunk :], state.pending)
        if all((step.chunk < 0).all() for _, step in streams):
            return x[:, :0]
        sights = [self._sight(state.ring, step, x) for state, step in streams]
        return self._run(x, sights, [state.caches for state, _ in streams], ring.per_chunk)

    def _sight(self, ring: Ring, step: Step, x: Tensor) -> Sight:
        """What the rows of one part may attend to; moves its ring to the chunk of the step."""
        device = x.device
        step.place(ring, "encoder", device)
        mask = additive_mask(step.mask("encoder", ring, "encoder", device), x)
        return Sight(step.rows, mask, self._relations(ring, step, device))

    def _relations(self, ring: Ring, step: Step, device: torch.device) -> Relations:
        """Relations of the chunk of each row to what lies in the ring."""
        if ring.limit is None:
            queries, keys = step.queries("encoder", device, ring.extra), step.keys(ring, "encoder", 0, device)
            return Relations.of(queries, keys, self.clip)
        tables = ring_relations(ring.chunks, ring.per_chunk, ring.extra, self.clip, device)
        return tables.at(ring.place if ring.places is None else ring.places)

    def _inputs(self, x: Tensor) -> Tensor:
        return self.layernorm_embedding(math.sqrt(self.dim) * x)

    def _with_positions(self, x: Tensor, position: Tensor) -> Tensor:
        """Add sinusoids of ``position`` (B or 1, S), if the model has absolute positions."""
        if not self.absolute_positions:
            return x
        index = position + POSITION_OFFSET
        if self.training and self.max_position_shift:
            # A random offset per sentence, so that the encoder does not rely on absolute positions.
            index = index + torch.randint(self.max_position_shift, (x.size(0), 1), device=x.device)
        return x + sinusoidal_positions(index, self.dim, x.dtype)

    def _run(self, x: Tensor, sights: list[Sight], caches: Sequence[list[ChunkCache]], keep: int) -> Tensor:
        """Layers over ``keep`` frames and the look-ahead copies behind them; returns the frames.

        Args:
            caches: of each part, one for each layer; empty for whole utterances.
        """
        for number, layer in enumerate(self.layers):
            # Nothing reads the copies after the last layer: there they are keys only.
            queries = keep if number == len(self.layers) - 1 else None
            x = run_layer(layer, self.checkpointed, x, with_caches(sights, [own[number] for own in caches]), queries)
        return x
