"""What the network returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nast_s2x.batches import Lengths


@dataclass
class NastOutput:
    """What :meth:`NastModel.forward` returns; of a stream, only what is new and final.

    Attributes:
        encoder_out, encoder_lengths: (B, S, D) encoder frames, and how many of each row are valid.
        text_logits, text_lengths: (B, N, V), valid slots.
        unit_logits, unit_lengths: (B, U, Vu), valid slots; ``None`` without a unit decoder.
        asr_logits: (B, S, V) of the source transcript, where asked for.
        text_glance_mask, unit_glance_mask: (B, N) and (B, U) slots whose label was shown; ``None`` without glancing.
        first_text_slot: index in the stream of the first slot returned.
    """

    encoder_out: Tensor
    encoder_lengths: Lengths
    text_logits: Tensor
    text_lengths: Lengths
    unit_logits: Tensor | None = None
    unit_lengths: Lengths | None = None
    asr_logits: Tensor | None = None
    text_glance_mask: Tensor | None = None
    unit_glance_mask: Tensor | None = None
    first_text_slot: int = 0
