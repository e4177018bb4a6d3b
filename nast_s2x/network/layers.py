"""Post-norm Transformer layers of the encoder and the decoders (parameter names as in the released checkpoints)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nast_s2x.network.attention import Angles, Attention, RelativeSelfAttention, Sight
from nast_s2x.network.linear import Linear

RESIDUAL_INIT_GAIN = 0.1
"""Scale of the encoder's residual branches at initialisation. Post-norm layers that start near the identity leave CTC's
plateau of constant outputs early; at full scale a stack of four needs several times as many updates."""


@dataclass(frozen=True)
class Dropouts:
    """Dropout rates: after attention and feed-forward, on attention weights, on activations."""

    residual: float = 0.1
    attention: float = 0.1
    activation: float = 0.1


def run_layer(layer: nn.Module, checkpointed: bool, *arguments: Any) -> Tensor:
    """Output of a layer; ``checkpointed``: its activations are not kept but computed again in the backward pass.

    The second computation draws the same dropout. Applies while gradients are recorded.
    """
    if checkpointed and torch.is_grad_enabled():
        again: Tensor = checkpoint(layer, *arguments, use_reentrant=False)
        return again
    out: Tensor = layer(*arguments)
    return out


class _PostNormLayer(nn.Module):
    """Common part of both kinds of layer: the residual step and the feed-forward block."""

    def __init__(self, dim: int, ffn_dim: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.dropouts = dropouts
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = Linear(dim, ffn_dim)
        self.fc2 = Linear(ffn_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def _residual(self, x: Tensor, update: Tensor, norm: nn.LayerNorm) -> Tensor:
        return norm(x + F.dropout(update, self.dropouts.residual, self.training))

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(self.fc1(x, relu=True), self.dropouts.activation, self.training)
        return self._residual(x, self.fc2(hidden), self.final_layer_norm)


class EncoderLayer(_PostNormLayer):
    """Relative self-attention, then feed-forward."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, clip: int, dropouts: Dropouts) -> None:
        super().__init__(dim, ffn_dim, dropouts)
        self.self_attn = RelativeSelfAttention(dim, heads, clip, dropouts.attention)
        with torch.no_grad():
            for branch in (self.self_attn.out_proj, self.fc2):
                branch.weight.mul_(RESIDUAL_INIT_GAIN)

    def forward(self, x: Tensor, sights: Sequence[Sight], queries: int | None = None) -> Tensor:
        """(B, T, D) -> (B, T or ``queries``, D); see :class:`RelativeSelfAttention` for the arguments."""
        attended = self.self_attn(x, sights, queries)
        x = self._residual(x[:, :queries], attended, self.self_attn_layer_norm)
        return self._feed_forward(x)


class DecoderLayer(_PostNormLayer):
    """Self-attention over slots, cross-attention to encoder frames, feed-forward."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropouts: Dropouts, memory_dim: int) -> None:
        super().__init__(dim, ffn_dim, dropouts)
        self.self_attn = Attention(dim, heads, dropouts.attention)
        self.encoder_attn = Attention(dim, heads, dropouts.attention, memory_dim)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        slots: Sequence[Sight],
        frames: Sequence[Sight],
        angles: tuple[Angles, Angles] = (None, None),
    ) -> Tensor:
        """(B, N, D) slots and the encoder frames (B, S, memory width), in streams the new ones -> (B, N, D).

        Args:
            slots, frames: what self-attention and cross-attention see.
            angles: rotary positions of self-attention and of cross-attention.
        """
        attended = self.self_attn(x, x, slots, angles[0])
        x = self._residual(x, attended, self.self_attn_layer_norm)
        attended = self.encoder_attn(x, memory, frames, angles[1])
        x = self._residual(x, attended, self.encoder_attn_layer_norm)
        return self._feed_forward(x)
