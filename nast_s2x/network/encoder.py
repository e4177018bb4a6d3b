"""The chunk-based non-autoregressive encoder (Ma et al., 2024, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nast_s2x.batches import Lengths
from nast_s2x.chunking import ChunkGeometry, SequenceLayout, attention_mask
from nast_s2x.network.attention import additive_mask
from nast_s2x.network.cache import ChunkCache, Ring
from nast_s2x.network.config import NastConfig
from nast_s2x.network.layers import Dropouts, EncoderLayer, run_layer
from nast_s2x.network.positions import POSITION_OFFSET, sinusoidal_positions
from nast_s2x.network.relations import Relations
from nast_s2x.network.streams import Step
from nast_s2x.network.subsampling import LEFT_FRAMES, ConvSubsampler


class EncoderState:
    """State of the encoder in N streams.

    Attributes:
        ring: where chunks lie in the caches.
        caches: keys and values of the computed frames, one cache a layer.
        left_frames: (N, 6, bins) feature frames that the next convolution windows need; ``None`` at the start.
        pending: (N, L, D) inputs, positions added, of the frames that are the look-ahead of the next chunk.
    """

    def __init__(self, geometry: ChunkGeometry, layers: int) -> None:
        left, per_chunk = geometry.policy.left_chunks, geometry.per_chunk("encoder")
        assert per_chunk is not None
        self.ring = Ring(None if left is None else left + 1, per_chunk, geometry.lookahead_encoder_frames)
        self.caches = [ChunkCache(self.ring) for _ in range(layers)]
        self.left_frames: Tensor | None = None
        self.pending: Tensor | None = None

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

    def init_state(self, geometry: ChunkGeometry) -> EncoderState:
        """State at the start of streams."""
        return EncoderState(geometry, len(self.layers))

    def forward(
        self,
        fbank: Tensor,
        lengths: Lengths | None,
        geometry: ChunkGeometry,
        state: EncoderState | None = None,
        step: Step | None = None,
    ) -> Tensor:
        """Feature frames (B, F, bins) -> encoder frames (B, S, D): all of them, or those of the chunk of ``step``.

        Args:
            lengths: valid *encoder* frames of each row; ``None``: all.
            state: of streams, to which ``fbank`` adds the frames of one step.
        """
        if state is not None and step is not None:
            return self._step(fbank, state, step)
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
        mask = attention_mask(query, key, left=left)
        return self._run(x, Relations.of(query, key, self.clip, left), mask, None, count)

    def _step(self, fbank: Tensor, state: EncoderState, step: Step) -> Tensor:
        """Encoder frames (N, E, D) of the chunk of ``step``, from its ``chunk_frames`` feature frames."""
        if state.left_frames is None:
            state.left_frames = fbank.new_zeros(fbank.size(0), LEFT_FRAMES, fbank.size(2))
        x, rest = self.conv_layers(fbank, state.left_frames)
        state.left_frames = step.keep(rest, state.left_frames)
        copies, size, device = state.ring.extra, state.ring.per_chunk, x.device
        x = self._with_positions(self._inputs(x), step.positions("encoder", device, copies).clamp(min=0))
        if copies:
            if state.pending is None:
                state.pending = x.new_zeros(x.size(0), copies, x.size(2))
            x = torch.cat([state.pending, x], dim=1)
            state.pending = step.keep(x[:, size:], state.pending)
        if (step.chunk < 0).all():
            return x[:, :0]
        step.place(state.ring, "encoder", device)
        query, key = step.queries("encoder", device, copies), step.keys(state.ring, "encoder", 0, device)
        mask = step.mask(query, key, state.ring, "encoder", 0)
        return self._run(x, Relations.of(query, key, self.clip), mask, state.caches, size)

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

    def _run(
        self,
        x: Tensor,
        relations: Relations,
        mask: Tensor | None,
        caches: list[ChunkCache] | None,
        keep: int,
    ) -> Tensor:
        """Layers over ``keep`` frames and the look-ahead copies behind them; returns the frames."""
        mask = additive_mask(mask, x)
        for number, layer in enumerate(self.layers):
            # Nothing reads the copies after the last layer: there they are keys only.
            queries = keep if number == len(self.layers) - 1 else None
            cache = None if caches is None else caches[number]
            x = run_layer(layer, self.checkpointed, x, relations, mask, cache, queries)
        return x
