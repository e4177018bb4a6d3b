"""Shares of the parts of a training step, measured in steps of their own."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nast_s2x.batches import Glancer, Lengths
from nast_s2x.benchmarks.timing import now
from nast_s2x.network import NastModel, NastOutput

PARTS = ("encoder", "decoders", "alignment", "losses", "backward", "optimizer")


class PartTimer:
    """Times the parts of forward passes: a model to be called in place of ``model``.

    The device finishes its work at each border, so the parts together take longer than a step without borders.

    Attributes:
        seconds: of the whole model, of the encoder, and of glancing in the middle of the model.
        training: as in :class:`torch.nn.Module`.
    """

    def __init__(self, model: NastModel, device: torch.device) -> None:
        self.model, self.device, self.training = model, device, model.training
        self.seconds = {"model": 0.0, "encoder": 0.0, "alignment": 0.0}

    def __call__(self, *arguments: Any, **flags: Any) -> NastOutput:
        """The model's output; glancers are timed too."""
        glancers = {name: self._timed_glancer(value) for name, value in flags.items() if name.endswith("_glancer")}
        begun: list[float] = []
        handles = [
            self.model.encoder.register_forward_pre_hook(lambda *_: begun.append(now(self.device))),
            self.model.encoder.register_forward_hook(lambda *_: self._add("encoder", begun.pop())),
        ]
        start = now(self.device)
        try:
            return self.model(*arguments, **{**flags, **glancers})
        finally:
            self._add("model", start)
            for handle in handles:
                handle.remove()

    def _add(self, part: str, begun: float) -> None:
        self.seconds[part] += now(self.device) - begun

    def _timed_glancer(self, glancer: Glancer) -> Glancer:
        def glance(logits: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
            begun = now(self.device)
            try:
                return glancer(logits, lengths)
            finally:
                self._add("alignment", begun)

        return glance


def measure_shares(
    model: NastModel,
    device: torch.device,
    forward: Callable[[Any], Tensor],
    backward: Callable[[Tensor], None],
    optimize: Callable[[], None],
    runs: int = 3,
) -> dict[str, float]:
    """Share of each of :data:`PARTS` in their sum: medians of ``runs`` steps.

    ``decoders`` are both decoders with their output layers, in both passes of glancing; ``alignment`` is glancing
    between the passes; ``optimizer`` is clipping and the update.

    Args:
        forward: computes the loss with the model that it is given.
        backward: makes gradients of the loss.
        optimize: updates the weights.
    """
    rows: list[dict[str, float]] = []
    for _ in range(runs):
        timer = PartTimer(model, device)
        times = [now(device)]
        loss = forward(timer)
        times.append(now(device))
        backward(loss)
        times.append(now(device))
        optimize()
        times.append(now(device))
        whole, backward_seconds, optimizer_seconds = (end - begin for begin, end in zip(times, times[1:]))
        parts = timer.seconds
        decoders = parts["model"] - parts["encoder"] - parts["alignment"]
        values = (parts["encoder"], decoders, parts["alignment"], whole - parts["model"])
        rows.append(dict(zip(PARTS, (*values, backward_seconds, optimizer_seconds), strict=True)))
    medians = {part: statistics.median(row[part] for row in rows) for part in PARTS}
    total = sum(medians.values())
    return {part: seconds / total for part, seconds in medians.items()}
