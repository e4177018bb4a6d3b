"""Greedy CTC generation behind ``fairseq-generate``: one forward pass, best labels, collapse."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nast_s2x.chunking import ChunkGeometry
from nast_s2x.ctc import ctc_collapse

EOS = 2
SPECIALS = (0, 1, EOS)
"""``<s>``, ``<pad>``, ``</s>``: predicted as labels, dropped after the collapse."""


def collapse_batch(logits: Tensor, lengths: Tensor, blank: int) -> list[list[int]]:
    """Tokens of each sentence from logits (B, T, V) and valid slots (B,)."""
    best = logits.argmax(-1).cpu()
    return [
        ctc_collapse(labels[:length], blank, SPECIALS) for labels, length in zip(best, lengths.tolist(), strict=True)
    ]


class CtcGreedyGenerator:
    """What fairseq calls a generator; of several models the log-probabilities of labels are averaged.

    Args:
        geometry: chunk sizes to generate with.
        blank: the blank label of the text.
    """

    def __init__(self, geometry: ChunkGeometry, blank: int) -> None:
        self.geometry = geometry
        self.blank = blank
        self.symbols_to_strip_from_output = {*SPECIALS, blank}

    @torch.no_grad()
    def generate(self, models: Sequence[nn.Module], sample: dict[str, Any], **_: Any) -> list[list[dict[str, Any]]]:
        """One hypothesis per sentence, in fairseq's form; its score is the mean log-probability of the best labels."""
        # Not `model.eval()(...)`: models that fairseq has made ready for generation return nothing from eval().
        for model in models:
            model.eval()
        outputs = [model(**sample["net_input"], geometry=self.geometry) for model in models]
        lengths = outputs[0].text_lengths
        log_probs = torch.stack([output.text_logits.float().log_softmax(-1) for output in outputs]).mean(0)
        scores = log_probs.max(-1).values
        hypotheses = []
        for row, tokens in enumerate(collapse_batch(log_probs, lengths, self.blank)):
            slot_scores = scores[row, : int(lengths[row])].cpu()
            hypotheses.append(
                [
                    {
                        # With </s>, as all of fairseq's hypotheses: its scorers crash on an empty one.
                        "tokens": torch.tensor([*tokens, EOS]),
                        "score": slot_scores.mean().item() if slot_scores.numel() else 0.0,
                        "positional_scores": slot_scores.clone(),
                        "attention": None,
                        "alignment": None,
                    }
                ]
            )
        return hypotheses
