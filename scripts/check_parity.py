#!/usr/bin/env python3
"""Compare this implementation with recorded outputs of the published one.

Usage: python scripts/check_parity.py FILE...

FILE is a fixture ``*.npz`` of the format described in tests/fixtures/parity/README.md (weights drawn from a seed, the
outputs of a forward pass, losses, gradients, alignments, glancing and streaming), a filter-bank fixture (``waveform``
and ``fbank``), or a folder with a released checkpoint, its features and its expected output. One row is printed per
quantity; the exit code is 1 if any row fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nast_s2x.batches import Glancer, Lengths, TargetBatch
from nast_s2x.checkpoints.published import config_from_published, load_published_state
from nast_s2x.chunking import ChunkPolicy
from nast_s2x.ctc import aligned_labels, viterbi_align
from nast_s2x.labels import NUM_SPECIALS
from nast_s2x.losses import ctc_loss, glance_probability, nmla_loss
from nast_s2x.network import NastModel, NastOutput

LOG_PROB_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
"""Relative to the largest entry of the recorded gradient."""
TIE = 1e-3
"""Two labels (or alignments) whose log-probabilities differ by less are a tie that float32 may decide either way."""
PUSH_FRAMES = 4
PAD = 1


@dataclass(frozen=True)
class Row:
    """One compared quantity: the greatest difference, what is allowed, and a remark."""

    name: str
    difference: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """False also where the difference is not a number."""
        return self.difference <= self.tolerance


class Fixture:
    """A recorded case: its arrays, the network rebuilt from its seed, and its inputs."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays.pop("meta")))
        state = seeded_weights(self.meta["weights"])
        config, self.policy = config_from_published(self.meta, state)
        self.model = NastModel(config).eval()
        load_published_state(self.model, state)
        self.lengths = self.tensor("in/src_lengths")
        self.frames = Lengths.of(self.lengths.tolist())
        self.fbank = seeded_input(self.meta["input_seed"], self.lengths)

    def tensor(self, name: str) -> Tensor:
        """A recorded array as a tensor."""
        return torch.from_numpy(self.arrays[name])

    def has(self, name: str) -> bool:
        """Whether the array was recorded."""
        return name in self.arrays

    def targets(self, name: str) -> TargetBatch:
        """Labels of a recorded matrix (B, L)."""
        labels = self.tensor(f"in/{name}")
        return TargetBatch.of(labels, Lengths.of((labels != PAD).sum(1).tolist()), PAD)

    def decoders(self) -> Iterator[tuple[str, str, int]]:
        """Prefix of recorded names, name of the target, and blank label of each decoder."""
        yield "text", "target_text", self.meta["blank_text"]
        if self.has("out/unit_log_probs"):
            yield "unit", "target_units", self.meta["blank_unit"]


def seeded_weights(recipe: dict[str, Any]) -> dict[str, Tensor]:
    """Parameters drawn in the recorded order: offset + scale * normal, then zero rows."""
    random = np.random.RandomState(recipe["seed"])
    state = {}
    for name, shape, offset, scale in recipe["parameters"]:
        state[name] = torch.from_numpy((offset + scale * random.standard_normal(shape)).astype(np.float32))
    for name in recipe["zero_row_1"]:
        state[name][1] = 0
    return state


def seeded_input(seed: int, lengths: Tensor) -> Tensor:
    """Features (B, F, 80) drawn from the seed, zero past each length."""
    shape = (len(lengths), int(lengths.max()), 80)
    fbank = torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))
    return fbank * (torch.arange(shape[1]) < lengths[:, None])[..., None]


def greatest(got: Tensor, expected: Tensor, lengths: Tensor) -> float:
    """Greatest absolute difference over the valid positions of (B, T, ...) tensors; infinite if shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    if got.numel() == 0:
        return 0.0
    valid = torch.arange(got.size(1)) < lengths[:, None]
    return float((got[valid].double() - expected[valid].double()).abs().max())


def output_of(output: NastOutput, decoder: str) -> tuple[Tensor, Lengths]:
    """Log-probabilities and lengths of the text or the unit decoder."""
    logits, lengths = getattr(output, f"{decoder}_logits"), getattr(output, f"{decoder}_lengths")
    return logits.log_softmax(-1), lengths


def check_forward(fixture: Fixture, output: NastOutput) -> Iterator[Row]:
    """Encoder output, log-probabilities and lengths of the offline forward pass."""
    expected = fixture.tensor("out/encoder_out")
    difference = greatest(output.encoder_out, expected, output.encoder_lengths.on("cpu"))
    yield Row("encoder_out", difference, LOG_PROB_TOLERANCE)
    lengths = {"encoder": output.encoder_lengths}
    for decoder, _, _ in fixture.decoders():
        log_probs, lengths[decoder] = output_of(output, decoder)
        expected = fixture.tensor(f"out/{decoder}_log_probs")
        yield Row(f"{decoder}_log_probs", greatest(log_probs, expected, lengths[decoder].on("cpu")), LOG_PROB_TOLERANCE)
    for part, ours in lengths.items():
        recorded = (~fixture.tensor(f"out/{part}_padding_mask")).sum(1)
        yield Row(f"{part}_lengths", float((ours.on("cpu") - recorded).abs().max()), 0)


def losses_of(fixture: Fixture, kind: str) -> dict[str, Tensor]:
    """The losses of one stage under their published names, without dropout and glancing."""
    output = fixture.model(fixture.fbank, fixture.frames, fixture.policy, with_asr=True)
    smoothing, blank = fixture.meta["label_smoothing"], fixture.meta["blank_text"]
    losses = {}
    for decoder, target, blank_label in fixture.decoders():
        targets = fixture.targets(target)
        logits, lengths = getattr(output, f"{decoder}_logits"), getattr(output, f"{decoder}_lengths")
        name = {"text": "ctc_loss", "unit": "ctc_unit_loss"}[decoder]
        if kind == "ctc":
            losses[name] = ctc_loss(logits, lengths, targets, blank_label, smoothing)
        else:
            losses[name] = nmla_loss(logits, lengths, targets, blank_label)
    losses["ctc_encoder_loss"] = ctc_loss(
        output.asr_logits, output.encoder_lengths, fixture.targets("source_text"), blank, smoothing
    )
    return losses


def check_losses(fixture: Fixture, kind: str) -> Iterator[Row]:
    """Losses of one stage and the gradients of their sum."""
    losses = losses_of(fixture, kind)
    for name, loss in losses.items():
        if fixture.has(f"out/{kind}/{name}"):
            expected = float(fixture.tensor(f"out/{kind}/{name}"))
            tolerance = LOG_PROB_TOLERANCE * max(1.0, abs(expected))
            yield Row(f"{kind}/{name}", abs(float(loss.detach()) - expected), tolerance)
    fixture.model.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    parameters = dict(fixture.model.named_parameters())
    prefix = f"out/{kind}/grad/"
    for name in sorted(name for name in fixture.arrays if name.startswith(prefix)):
        expected_grad, grad = fixture.tensor(name), parameters[name.removeprefix(prefix)].grad
        difference = float("inf") if grad is None else float((grad - expected_grad).abs().max())
        scale = max(float(expected_grad.abs().max()), 1e-12)
        yield Row(f"{kind}/grad/{name.removeprefix(prefix)}", difference / scale, GRADIENT_TOLERANCE, "relative")


def path_score(log_probs: Tensor, states: Tensor, targets: Tensor, blank: int) -> Tensor:
    """Log-probability of each sentence's alignment, (B,)."""
    labels = aligned_labels(states, targets, blank, pad=PAD)
    picked = log_probs.gather(-1, labels[..., None])[..., 0]
    return picked.masked_fill(states < 0, 0).sum(1)


def check_alignment(fixture: Fixture, output: NastOutput) -> Iterator[Row]:
    """Best alignment of the text target; another one of equal probability (to a float32 tie) also passes."""
    if not fixture.has("out/text_best_alignment"):
        return
    log_probs, lengths = output_of(output, "text")
    targets = fixture.targets("target_text")
    blank = fixture.meta["blank_text"]
    states = viterbi_align(log_probs, lengths, targets.labels, targets.lengths, blank)
    expected = fixture.tensor("out/text_best_alignment")
    if states.shape != expected.shape:
        yield Row("text_best_alignment", float("inf"), 0)
        return
    differing = (states != expected).any(1)
    scores = [path_score(log_probs, path, targets.labels, blank) for path in (states, expected)]
    gap = (scores[0] - scores[1]).abs()
    wrong = differing & ((gap > TIE) | ((states < 0) != (expected < 0)).any(1))
    note = f"{int(differing.sum())} tied" if differing.any() else ""
    yield Row("text_best_alignment", float(wrong.sum()), 0, note)


def check_glancing(fixture: Fixture, output: NastOutput) -> Iterator[Row]:
    """Aligned labels, keep probabilities, and the second pass under the recorded masks."""
    glancers: dict[str, Glancer] = {}
    ratios = {"text": 0.5, "unit": 0.3}
    for decoder, target, blank in fixture.decoders():
        if not fixture.has(f"out/glance/{decoder}_labels"):
            return
        log_probs, lengths = output_of(output, decoder)
        targets = fixture.targets(target)
        states = viterbi_align(log_probs, lengths, targets.labels, targets.lengths, blank)
        labels = aligned_labels(states, targets.labels, blank, pad=PAD)
        expected = fixture.tensor(f"out/glance/{decoder}_labels")
        picked = (log_probs.gather(-1, each[..., None])[..., 0] for each in (labels, expected))
        scores = [each.masked_fill(expected == PAD, 0).sum(1) for each in picked]
        tied = (scores[0] - scores[1]).abs() < TIE  # another alignment of the same probability
        wrong = (labels != expected) & ~(tied & ((labels == PAD) == (expected == PAD)).all(1))[:, None]
        yield Row(f"glance/{decoder}_labels", float(wrong.sum()), 0)
        probability = glance_probability(log_probs.argmax(-1), expected, lengths, ratios[decoder])
        recorded = fixture.tensor(f"out/glance/{decoder}_keep_probability")
        yield Row(f"glance/{decoder}_keep_probability", float((probability - recorded).abs().max()), 1e-6)
        shown = (expected, fixture.tensor(f"out/glance/{decoder}_mask").bool())
        glancers[f"{decoder}_glancer"] = lambda logits, lengths, shown=shown: shown
    with torch.no_grad():
        second = fixture.model(fixture.fbank, fixture.frames, fixture.policy, **glancers)
    for decoder, _, _ in fixture.decoders():
        log_probs, lengths = output_of(second, decoder)
        expected = fixture.tensor(f"out/glance/{decoder}_log_probs")
        yield Row(f"glance/{decoder}_log_probs", greatest(log_probs, expected, lengths.on("cpu")), LOG_PROB_TOLERANCE)


@dataclass
class Stream:
    """Output of a stream: log-probabilities, text slots of each emission, and feature frames read before it."""

    log_probs: dict[str, Tensor]
    sizes: list[int]
    frames_read: list[int]


def run_stream(model: NastModel, fbank: Tensor, policy: ChunkPolicy) -> Stream:
    """Feed features (1, F, 80) in small pieces."""
    state = model.init_state(policy)
    parts: dict[str, list[Tensor]] = {"text": [], "unit": []}
    stream = Stream({}, [], [])
    total = fbank.size(1)
    for start in range(0, total + PUSH_FRAMES, PUSH_FRAMES):  # the last piece is empty and final
        piece, final = fbank[:, start : start + PUSH_FRAMES], start >= total
        with torch.no_grad():
            output = model(piece, None, policy, state=state, final=final)
        if output.text_logits.size(1):
            stream.sizes.append(output.text_logits.size(1))
            stream.frames_read.append(min(total, start + PUSH_FRAMES))
        for decoder in parts:
            if getattr(output, f"{decoder}_logits") is not None:
                parts[decoder].append(output_of(output, decoder)[0])
    stream.log_probs = {decoder: torch.cat(each, dim=1) for decoder, each in parts.items() if each}
    return stream


def check_stream(fixture: Fixture, output: NastOutput) -> Iterator[Row]:
    """Streaming labels and schedule of sentence 0 against the record, and its log-probabilities against offline."""
    frames = int(fixture.lengths[0])
    stream = run_stream(fixture.model, fixture.fbank[:1, :frames], fixture.policy)
    for decoder, _, _ in fixture.decoders():
        log_probs = stream.log_probs[decoder]
        offline, lengths = output_of(output, decoder)
        whole = offline[:1, : lengths.host[0]]
        yield Row(f"stream/{decoder} = offline", greatest(log_probs, whole, lengths.on("cpu")[:1]), LOG_PROB_TOLERANCE)
        recorded = fixture.tensor("out/stream/" + {"text": "text", "unit": "units"}[decoder])
        wrong, ties = compare_labels(log_probs[0], recorded)
        yield Row(f"stream/{decoder}_labels", wrong, 0, f"{ties} tied" if ties else "")
    for name, ours in (("text_chunk_sizes", stream.sizes), ("frames_read", stream.frames_read)):
        recorded = fixture.arrays[f"out/stream/{name}"].tolist()
        yield Row(f"stream/{name}", 0.0 if ours == recorded else float("inf"), 0, f"{len(ours)} emissions")


def compare_labels(log_probs: Tensor, recorded: Tensor) -> tuple[float, int]:
    """Slots whose best label (T, V) differs from the recorded one (T,), ties counted apart."""
    if log_probs.size(0) != recorded.numel():
        return float("inf"), 0
    best = log_probs.max(-1)
    differing = best.indices != recorded
    gap = best.values - log_probs.gather(-1, recorded[:, None])[:, 0]
    ties = differing & (gap < TIE)
    return float((differing & ~ties).sum()), int(ties.sum())


def check_fixture(path: Path) -> Iterator[Row]:
    """All rows of one recorded case."""
    fixture = Fixture(path)
    with torch.no_grad():
        output = fixture.model(fixture.fbank, fixture.frames, fixture.policy)
    yield from check_forward(fixture, output)
    for kind in ("ctc", "nmla"):
        if any(name.startswith(f"out/{kind}/") for name in fixture.arrays):
            yield from check_losses(fixture, kind)
    yield from check_alignment(fixture, output)
    yield from check_glancing(fixture, output)
    if fixture.has("out/stream/text"):
        yield from check_stream(fixture, output)


def check_fbank(path: Path) -> Iterator[Row]:
    """Our filter bank against recorded torchaudio features."""
    from nast_s2x.frontend.fbank import fbank

    with np.load(path, allow_pickle=False) as arrays:
        waveform, expected = arrays["waveform"], torch.from_numpy(arrays["fbank"])
    features = fbank(waveform)
    difference = float((features - expected).abs().max()) if features.shape == expected.shape else float("inf")
    yield Row("fbank", difference, 5e-3)


def check_released(folder: Path) -> Iterator[Row]:
    """A released checkpoint with its data folder and ``features.npy`` against ``expected.json``."""
    from nast_s2x.ctc import ctc_collapse
    from nast_s2x.inference.loading import load_system

    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    system = load_system(folder / "checkpoint.pt", data=folder)
    features = torch.from_numpy(np.load(folder / "features.npy"))
    with torch.no_grad():
        output = system.model(features[None], None, system.policy(prefer_offline=False))
    for decoder in ("text", "unit"):
        log_probs, _ = output_of(output, decoder)
        recorded = torch.tensor(expected[f"{decoder}_alignment"])
        wrong, ties = compare_labels(log_probs[0], recorded)
        yield Row(f"{decoder}_labels", wrong, 0, f"{ties} tied" if ties else "")
    text, _ = output_of(output, "text")
    units, _ = output_of(output, "unit")
    tokens = ctc_collapse(text[0].argmax(-1), system.text.blank, range(NUM_SPECIALS))
    pieces = " ".join(system.text.piece(token) for token in tokens)
    assert system.units is not None
    codes = system.units.collapser().push(units[0].argmax(-1).tolist())
    yield Row("text_pieces", float(pieces != expected["text_pieces"]), 0)
    yield Row("units", float(codes != expected["units"]), 0)
    count = sum(parameter.numel() for parameter in system.model.parameters())
    yield Row("parameters", abs(count - expected["n_params"]), 0, str(count))


def check(path: Path) -> list[Row]:
    """Rows of a case, a filter-bank fixture or the folder of a released checkpoint."""
    if path.is_dir():
        return list(check_released(path))
    with np.load(path, allow_pickle=False) as arrays:
        names = arrays.files
    if "meta" in names:
        return list(check_fixture(path))
    if "fbank" in names:
        return list(check_fbank(path))
    raise ValueError(f"{path}: neither a case (no 'meta') nor a filter-bank fixture (no 'fbank')")


def main(arguments: list[str] | None = None) -> int:
    """Print one row per quantity; returns 1 if any fails, else 0."""
    parser = argparse.ArgumentParser(description="Compare with recorded outputs of the published implementation.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="fixture .npz, or a checkpoint folder")
    failures = rows = 0
    for path in parser.parse_args(arguments).files:
        print(path)
        for row in check(path):
            rows += 1
            failures += not row.passed
            verdict = "ok  " if row.passed else "FAIL"
            difference = f"max difference {row.difference:9.2e} (<= {row.tolerance:.0e})"
            print(f"  {verdict} {row.name:62s} {difference} {row.note}")
    print(f"{rows - failures} of {rows} quantities agree")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
