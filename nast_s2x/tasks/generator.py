"""Greedy CTC generation for ``fairseq-generate``: one forward pass, best labels, collapse."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nast_s2x.batches import Lengths
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.labels import BOS, EOS, PAD, TextLabels


def network_inputs(sample: dict[str, Any]) -> tuple[Tensor, Lengths]:
    """Features (B, F, bins) and valid frames of a batch of :class:`~nast_s2x.tasks.dataset.NastDataset`."""
    return sample["net_input"]["fbank"], Lengths(tuple(sample["net_input"]["frames"]))


def best_labels(logits: Tensor, lengths: Lengths) -> list[list[int]]:
    """Best label of each valid slot of each sentence, from logits (B, T, V)."""
    best = logits.argmax(-1).tolist()
    return [labels[:length] for labels, length in zip(best, lengths.host, strict=True)]


class CtcGreedyGenerator:
    """Generator in the sense of fairseq; the log-probabilities of several models are averaged.

    Args:
        policy: chunk policy to generate with.
        labels: labels of the text decoder.
    """

    def __init__(self, policy: ChunkPolicy, labels: TextLabels) -> None:
        self.policy, self.labels = policy, labels
        self.symbols_to_strip_from_output = {BOS, PAD, EOS, labels.blank}

    @torch.no_grad()
    def generate(self, models: Sequence[nn.Module], sample: dict[str, Any], **_: Any) -> list[list[dict[str, Any]]]:
        """One hypothesis per sentence, in fairseq's form; its score is the mean log-probability of the best labels."""
        # Not `model.eval()(...)`: eval() of models that fairseq has prepared for generation returns None.
        for model in models:
            model.eval()
        inputs = network_inputs(sample)
        outputs = [model(*inputs, self.policy) for model in models]
        lengths = outputs[0].text_lengths
        log_probs = torch.stack([output.text_logits.float().log_softmax(-1) for output in outputs]).mean(0)
        scores = log_probs.max(-1).values
        hypotheses = []
        for row, best in enumerate(best_labels(log_probs, lengths)):
            tokens = self.labels.collapser().push(best)
            slot_scores = scores[row, : lengths.host[row]].cpu()
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
