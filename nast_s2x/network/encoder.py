"""The chunk-based non-autoregressive encoder (Ma et al., 2024, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nast_s2x.batches import Lengths
from nast_s2x.chunking import ChunkGeometry, SequenceLayout, attention_mask
from nast_s2x.errors import StreamError
from nast_s2x.network.attention import additive_mask
from nast_s2x.network.cache import KeyValueCache
from nast_s2x.network.config import NastConfig
from nast_s2x.network.layers import Dropouts, EncoderLayer, run_layer
from nast_s2x.network.positions import POSITION_OFFSET, sinusoidal_positions
from nast_s2x.network.relations import Relations
from nast_s2x.network.subsampling import ConvSubsampler


@dataclass
class EncoderState:
    """State of the encoder in a stream.

    Attributes:
        caches: keys and values of the emitted frames, one cache a layer.
        left_frames: (B, L, bins) feature frames that the next convolution windows need.
        pending: (B, P, D) inputs, positions added, of frames that are not final yet.
        num_frames: feature frames received.
        num_emitted: encoder frames returned.
        finished: the final frames were received.
    """

    caches: list[KeyValueCache] = field(default_factory=list)
    left_frames: Tensor | None = None
    pending: Tensor | None = None
    num_frames: int = 0
    num_emitted: int = 0
    finished: bool = False


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

    def init_state(self) -> EncoderState:
        """State at the start of a stream."""
        return EncoderState(caches=[KeyValueCache() for _ in self.layers])

    def forward(
        self,
        fbank: Tensor,
        lengths: Lengths | None,
        geometry: ChunkGeometry,
        state: EncoderState | None = None,
        final: bool = True,
    ) -> Tensor:
        """Feature frames (B, F, bins) -> encoder frames (B, S, D).

        Args:
            lengths: valid *encoder* frames of each row; ``None``: all.
            state: a stream, to which ``fbank`` adds new frames; only frames that are final are returned.
            final: the source ends here.

        Raises:
            StreamError: frames after the final ones; the state is unchanged.
        """
        if state is not None and state.finished:
            raise StreamError("the stream has ended: a state takes no frames after final=True")
        inputs = self._embed(fbank, state)
        if state is None:
            return self._run(inputs, 0, inputs.size(1), lengths, geometry, None)
        start, available = state.num_emitted, state.num_emitted + inputs.size(1)
        ready = geometry.ready_chunks(state.num_frames) * (geometry.per_chunk("encoder") or 0)
        stop = available if final else max(start, ready)
        state.finished = final
        state.pending = inputs[:, stop - start :]
        state.num_emitted = stop
        return self._run(inputs, start, stop, lengths, geometry, state)

    def _embed(self, fbank: Tensor, state: EncoderState | None) -> Tensor:
        """Inputs of all frames that are not emitted yet, (B, P, D): pending ones and those of the new frames."""
        x, rest = self.conv_layers(fbank, None if state is None else state.left_frames)
        x = self.layernorm_embedding(math.sqrt(self.dim) * x)
        start = 0
        if state is not None:
            state.left_frames = rest
            state.num_frames += fbank.size(1)
            start = state.num_emitted + (0 if state.pending is None else state.pending.size(1))
        if self.absolute_positions:
            x = x + self._positions(x, start)
        if state is not None and state.pending is not None:
            x = torch.cat([state.pending, x], dim=1)
        return x

    def _positions(self, x: Tensor, start: int) -> Tensor:
        index = torch.arange(start, start + x.size(1), device=x.device)[None] + POSITION_OFFSET
        if self.training and self.max_position_shift:
            # A random offset per sentence, so that the encoder does not rely on absolute positions.
            index = index + torch.randint(self.max_position_shift, (x.size(0), 1), device=x.device)
        return sinusoidal_positions(index, self.dim, x.dtype)

    def _run(
        self,
        inputs: Tensor,
        start: int,
        stop: int,
        lengths: Lengths | None,
        geometry: ChunkGeometry,
        state: EncoderState | None,
    ) -> Tensor:
        """Layers over the frames ``start .. stop - 1`` and the look-ahead copies of their chunks."""
        keep = stop - start
        if keep == 0:
            return inputs[:, :0]
        per_chunk, device = geometry.per_chunk("encoder"), inputs.device
        query = SequenceLayout.plain(start, stop, per_chunk, device=device)
        key = SequenceLayout.plain(0, stop, per_chunk, lengths, device)
        x = inputs[:, :keep]
        if per_chunk is not None and geometry.lookahead_encoder_frames:
            copies = SequenceLayout.copies(
                (start // per_chunk, stop // per_chunk),
                per_chunk,
                geometry.lookahead_encoder_frames,
                start + inputs.size(1),
                lengths,
                device,
            )
            query, key = query + copies, key + copies
            x = torch.cat([x, inputs.index_select(1, copies.position - start)], dim=1)
        left = geometry.policy.left_chunks
        mask = additive_mask(attention_mask(query, key, left=left), inputs)
        relations = Relations.of(query, key, self.clip, left)
        for number, layer in enumerate(self.layers):
            # Nothing reads the copies after the last layer: there they are keys only.
            queries = keep if number == len(self.layers) - 1 else None
            cache = None if state is None else state.caches[number]
            x = run_layer(layer, self.checkpointed, x, relations, mask, cache, keep, queries)
        return x
