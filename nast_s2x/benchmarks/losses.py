"""The parts ``nmla`` and ``alignment`` of ``nast-s2x benchmark``.

Run as a module, this file is the child process whose peak memory is measured:
``python -m nast_s2x.benchmarks.losses recurrence|pairwise|inputs BATCH SLOTS VOCAB TARGETS DEVICE DTYPE THREADS``.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nast_s2x.batches import Lengths, TargetBatch
from nast_s2x.benchmarks.timing import Setting, peak_bytes, timed
from nast_s2x.ctc import viterbi_align
from nast_s2x.errors import ConfigError
from nast_s2x.losses.nmla import nmla_loss
from nast_s2x.losses.nmla_pairwise import nmla_loss_pairwise

_LOSSES = {"recurrence": nmla_loss, "pairwise": nmla_loss_pairwise}


def run_nmla(args: argparse.Namespace) -> dict[str, float | str]:
    """NMLA of order 2, forward and backward, in linear time and as one vectorised expression over pairs of slots.

    Returns:
        seconds (best of 20 runs), pairwise_seconds (best of 2 runs), speedup; extra_bytes and
        pairwise_extra_bytes (peak of a new process, above that of one that only builds the inputs), memory_ratio;
        max_abs_difference of loss and gradient; device, dtype.
    Raises:
        ConfigError: a size, number type or device that cannot be measured.
        RuntimeError: a process whose memory is measured failed; shows its error messages.
    """
    sizes = (args.batch or 4, args.slots or 600, args.vocab or 1005, args.targets or 250)
    _check_sizes(*sizes[1:])
    setting = Setting.of(args, "nmla")
    flags = (args.device, args.dtype, str(args.threads))
    base, extra, pairwise_extra = (_peak_of_child(what, sizes, flags) for what in ("inputs", *_LOSSES))
    inputs = _inputs(*sizes, setting)
    seconds = _best_time(setting.device, lambda: _loss_and_gradient(nmla_loss, inputs), runs=20)
    pairwise = _best_time(setting.device, lambda: _loss_and_gradient(nmla_loss_pairwise, inputs), runs=2)
    ours, reference = (_loss_and_gradient(loss, inputs) for loss in _LOSSES.values())
    extra, pairwise_extra = max(extra - base, 1), pairwise_extra - base
    return {
        "seconds": seconds,
        "pairwise_seconds": pairwise,
        "speedup": pairwise / seconds,
        "extra_bytes": extra,
        "pairwise_extra_bytes": pairwise_extra,
        "memory_ratio": pairwise_extra / extra,
        "max_abs_difference": max(float((a - b).abs().max()) for a, b in zip(ours, reference, strict=True)),
        **setting.describe(),
    }


def run_alignment(args: argparse.Namespace) -> dict[str, float | bool | str]:
    """Batched Viterbi alignment, and a plain Python loop over slots and states in float64.

    Returns:
        seconds (the whole batch, best of 10 runs), reference_seconds (the loop for the first sentence, once, times the
        batch size), speedup, states_equal (for the first sentence), device, dtype.
    Raises:
        ConfigError: a size, number type or device that cannot be measured.
    """
    sizes = (args.batch or 16, args.slots or 600, args.vocab or 1004, args.targets or 200)
    _check_sizes(*sizes[1:])
    setting = Setting.of(args, "alignment")
    logits, lengths, targets, blank = _inputs(*sizes, setting)
    log_probs = logits.detach().log_softmax(-1)
    seconds = _best_time(
        setting.device, lambda: viterbi_align(log_probs, lengths, targets.labels, targets.lengths, blank), runs=10
    )
    begun = time.perf_counter()
    reference = viterbi_one(log_probs[0, : lengths.host[0]].float().tolist(), targets.labels[0].tolist(), blank)
    one = time.perf_counter() - begun
    # In float64 as the reference: rounding could choose between paths of almost equal probability.
    one_length, one_target = Lengths(lengths.host[:1]), Lengths(targets.lengths.host[:1])
    first = viterbi_align(log_probs[:1].double(), one_length, targets.labels[:1], one_target, blank)
    return {
        "seconds": seconds,
        "reference_seconds": one * sizes[0],
        "speedup": one * sizes[0] / seconds,
        "states_equal": first[0, : lengths.host[0]].tolist() == reference,
        **setting.describe(),
    }


def viterbi_one(log_probs: list[list[float]], target: list[int], blank: int) -> list[int]:
    """Best CTC alignment of one sentence in plain Python.

    Args:
        log_probs: [T][V], T at least 1.
        target: labels without blanks.
    Returns:
        State of each slot (2 i + 1 is label i, even states are blanks), [T]; empty if the target does not fit.
    """
    labels = [blank]
    for label in target:
        labels += [label, blank]
    count, never = len(labels), float("-inf")
    scores = [log_probs[0][label] if state < 2 else never for state, label in enumerate(labels)]
    table: list[list[int]] = []
    for row in log_probs[1:]:
        sources = []
        for state, label in enumerate(labels):
            options = [state]
            if state >= 1:
                options.append(state - 1)
            if state >= 2 and state % 2 == 1 and label != labels[state - 2]:
                options.append(state - 2)
            sources.append(max(options, key=scores.__getitem__))  # of equal scores the nearest state
        scores = [scores[source] + row[labels[state]] for state, source in enumerate(sources)]
        table.append(sources)
    state = max(range(max(count - 2, 0), count), key=scores.__getitem__)
    if scores[state] == never:
        return []
    path = [state]
    for sources in reversed(table):
        path.append(sources[path[-1]])
    return path[::-1]


def _check_sizes(slots: int, vocab: int, targets: int) -> None:
    if vocab < 6:
        raise ConfigError(f"--vocab must be at least 6 (4 special labels, one of the target, the blank), got {vocab}")
    if targets < 2 or 2 * targets > slots:
        raise ConfigError(f"--targets must be at least 2 and at most half the slots ({slots}), got {targets}")


def _inputs(
    batch: int, slots: int, vocab: int, targets: int, setting: Setting
) -> tuple[Tensor, Lengths, TargetBatch, int]:
    """Logits (B, T, V) that require a gradient, slots and targets of each sentence, and the blank label.

    Sentence b has T - 3 b slots, and at least twice as many as its target has labels.

    The logits are random with a peak of about 0.8 at an evenly spread alignment of the target, so that its n-grams are
    expected to appear and the losses compared are far from 0.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, slots, vocab, generator=generator)
    lengths = torch.tensor([max(slots - 3 * sentence, 2 * targets) for sentence in range(batch)])
    labels = torch.randint(4, vocab - 1, (batch, targets), generator=generator)
    target_batch = TargetBatch.of(labels, Lengths((targets,) * batch))
    planned = torch.full((batch, slots), vocab - 1)
    planned.scatter_(1, torch.arange(targets) * lengths[:, None] // targets, labels)
    logits.scatter_add_(2, planned[:, :, None], torch.full((batch, slots, 1), math.log(vocab) + 2.0))
    logits = logits.to(setting.device, setting.dtype)
    target_batch = target_batch.to(setting.device)
    return logits.requires_grad_(), Lengths.of(lengths.tolist()), target_batch, vocab - 1


def _loss_and_gradient(loss: Callable[..., Tensor], inputs: tuple) -> tuple[Tensor, Tensor]:
    value = loss(*inputs)
    return value.detach(), torch.autograd.grad(value, inputs[0])[0]


def _best_time(device: torch.device, work: Callable[[], object], runs: int) -> float:
    # The minimum, since background load only adds to a run.
    return min(timed(device, work) for _ in range(runs))


def _peak_of_child(what: str, sizes: tuple[int, ...], flags: tuple[str, ...]) -> int:
    """Peak memory in bytes of a new process that runs :func:`_child`.

    Args:
        what: ``inputs``, or a loss of :data:`_LOSSES`.
        flags: device, number type, threads.
    """
    command = [sys.executable, "-m", "nast_s2x.benchmarks.losses", what, *map(str, sizes), *flags]
    # The child imports this package from the same folder, whatever its working directory.
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0:
        raise RuntimeError(f"the process that measures {what} ended with {result.returncode}: {result.stderr.strip()}")
    return int(result.stdout)


def _child(arguments: list[str]) -> None:
    what, *numbers, device, dtype, threads = arguments
    setting = Setting.of(argparse.Namespace(device=device, dtype=dtype, threads=int(threads)), "nmla")
    batch, slots, vocab, targets = map(int, numbers)
    inputs = _inputs(batch, slots, vocab, targets, setting)
    if what != "inputs":
        _loss_and_gradient(_LOSSES[what], inputs)
    print(peak_bytes(setting.device))


if __name__ == "__main__":
    _child(sys.argv[1:])
