#!/usr/bin/env python3
"""Check a GPU against the CPU, and measure training, streaming and translation on it.

    python scripts/gpu_check.py --device cuda --output FILE
    python scripts/gpu_check.py --device cpu --small --output FILE

Writes one JSON file, anew after each part: device, versions, `checks` (each with `passed`, seconds and figures, or the
error), `benchmarks` (the result of `nast-s2x benchmark`, an error, or the reason why it was skipped). A part that fails
does not stop the others. The exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nast_s2x import __version__  # noqa: E402
from nast_s2x.batches import Lengths  # noqa: E402
from nast_s2x.benchmarks.streaming import compare, random_model, stream  # noqa: E402
from nast_s2x.benchmarks.timing import device_name  # noqa: E402
from nast_s2x.benchmarks.training import TEXT_VOCAB, UNIT_VOCAB, random_batch, to_device  # noqa: E402
from nast_s2x.chunking import ChunkPolicy, SequenceLayout, may_attend  # noqa: E402
from nast_s2x.cli import benchmark  # noqa: E402
from nast_s2x.ctc.viterbi import viterbi_align, viterbi_align_torch  # noqa: E402
from nast_s2x.device import find_device  # noqa: E402
from nast_s2x.errors import NastError  # noqa: E402
from nast_s2x.files import write_json  # noqa: E402
from nast_s2x.frontend.audio import load_audio  # noqa: E402
from nast_s2x.inference.engine import BatchedEngine  # noqa: E402
from nast_s2x.inference.loading import load_system  # noqa: E402
from nast_s2x.losses import Objective  # noqa: E402
from nast_s2x.losses.nmla import add_columns  # noqa: E402
from nast_s2x.network import NastModel, preset  # noqa: E402
from nast_s2x.network.relations import Relations  # noqa: E402

EXAMPLE = ROOT / "examples" / "espeak_fr_en"
PIECE = 640
"""Samples of a piece of a stream, 40 ms."""
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
"""Largest relative difference of a loss, and of a parameter's gradient (norm of the difference over the norm)."""


@dataclass(frozen=True)
class Scope:
    """Where and how much is checked.

    Attributes:
        device: device to be checked.
        small: sizes for a dry run on a CPU.
    """

    device: torch.device
    small: bool


def translations(scope: Scope) -> dict[str, Any]:
    """The bundled recordings as streams of 320 ms: the same emissions as on the CPU."""
    recordings = sorted((EXAMPLE / "recordings").glob("*.flac"))[: 2 if scope.small else None]
    found: list[list[Any]] = []
    for device in ("cpu", scope.device):
        system, emissions = load_system(EXAMPLE / "speech_bundle").to(device), []
        for path in recordings:
            samples, session = load_audio(path), system.stream(chunk_ms=320, with_units=True)
            for start in range(0, len(samples), PIECE):
                emissions += session.push(samples[start : start + PIECE], final=start + PIECE >= len(samples))
        found.append(emissions)
    different = sum(a != b for a, b in zip(*found)) + abs(len(found[0]) - len(found[1]))
    figures = {"recordings": len(recordings), "emissions": len(found[0]), "different": different}
    return {"passed": different == 0 and bool(found[0]), **figures}


def engine(scope: Scope) -> dict[str, Any]:
    """The bundled recordings at once in an engine on the device: words and units of each as alone on the CPU."""
    recordings = sorted((EXAMPLE / "recordings").glob("*.flac"))[: 2 if scope.small else None]
    sources = [load_audio(path) for path in recordings]
    system = load_system(EXAMPLE / "speech_bundle")
    policy = system.policy(320, left_ms=5120)
    alone = [system.stream(policy).push(samples, final=True) for samples in sources]
    together = BatchedEngine(system.to(scope.device), len(sources), policy)
    streams = [together.open() for _ in sources]
    for number, (opened, samples) in enumerate(zip(streams, sources)):
        opened.push(samples[: 4000 * number])  # the streams stand at different places
        opened.push(samples[4000 * number :], final=True)
    found: dict[Any, list[tuple[str, list[int]]]] = {opened: [] for opened in streams}
    while len(together):
        for opened, emission in together.step():
            found[opened].append((emission.delta, emission.units))

    def joined(emissions: Sequence[tuple[str, list[int]]]) -> tuple[str, list[int]]:
        return "".join(delta for delta, _ in emissions), [unit for _, units in emissions for unit in units]

    different = sum(
        joined(found[opened]) != joined([(emission.delta, emission.units) for emission in emissions])
        for opened, emissions in zip(streams, alone)
    )
    return {"passed": different == 0 and bool(sources), "streams": len(sources), "different": different}


def alignment(scope: Scope) -> dict[str, Any]:
    """Alignments of random targets with repeats; on a GPU the Triton program, on the CPU the torch form."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 60, 12, 9), (2, 40, 5, 20), (4, 30, 6, 1)]
    if not scope.small:
        sizes += [(16, 600, 1004, 200), (40, 750, 1005, 202), (40, 125, 10_000, 42)]
    compared = different = 0
    for batch, slots, vocab, longest in sizes:
        log_probs = torch.randn(batch, slots, vocab, generator=generator).log_softmax(-1)
        targets = torch.randint(0, min(vocab - 1, 40), (batch, longest), generator=generator)
        lengths = Lengths.of(torch.randint(slots // 2, slots + 1, (batch,), generator=generator).tolist())
        counts = Lengths.of(torch.randint(0, longest + 1, (batch,), generator=generator).tolist())
        expected = viterbi_align_torch(log_probs, lengths.on("cpu"), targets, counts.on("cpu"), vocab - 1)
        here = scope.device
        states = viterbi_align(log_probs.to(here), lengths, targets.to(here), counts, vocab - 1).cpu()
        compared += expected.numel()
        different += int((states != expected).sum())
    form = "triton" if scope.device.type == "cuda" else "torch"
    return {"passed": different == 0, "form": form, "states": compared, "different": different}


def sums_by_relation(scope: Scope) -> dict[str, Any]:
    """Sums of weights by relation, and the gradient of reading scores, against scatter_add on the CPU."""
    largest, clip, per_chunk = 0.0, 32, 8
    for positions in (48, 100) if scope.small else (48, 250, 253):
        plain = SequenceLayout.plain(0, positions, per_chunk)
        copied = SequenceLayout.copies((0, positions // per_chunk), per_chunk, per_chunk, positions)
        layout = plain + copied
        on_device = SequenceLayout(
            *(part.to(scope.device) for part in (layout.position, layout.chunk, layout.lookahead))
        )
        visible = may_attend(layout, layout)
        weights = torch.rand(2, 4, len(layout), len(layout)).masked_fill(~visible, 0.0)
        rows = Relations.of(layout, layout, clip).rows
        expected = torch.zeros(2, 4, len(layout), 2 * clip + 1)
        expected = expected.scatter_add(-1, rows.expand_as(weights), weights)
        relations = Relations.of(on_device, on_device, clip)
        moved = weights.to(scope.device)
        scores = torch.zeros(expected.shape, device=scope.device, requires_grad=True)
        relations.spread(scores).backward(moved)
        for found in (relations.sum(moved), scores.grad):
            largest = max(largest, float((found.cpu() - expected).abs().max()))
    return {
        "passed": largest < 1e-4,
        "form": "triton" if relations.places is not None else "scatter",
        "largest": largest,
    }


def columns(scope: Scope) -> dict[str, Any]:
    """NMLA's sums of columns with equal labels, against scatter_add on the CPU."""
    generator = torch.Generator().manual_seed(0)
    slots, batch, labels, vocab = (20, 2, 9, 30) if scope.small else (750, 40, 203, 1005)
    values = torch.randn(slots, batch, labels, generator=generator)
    places = torch.randint(0, vocab, (batch, labels), generator=generator)
    places[:, labels // 2 :] = 1  # padding
    expected = torch.zeros(slots, batch, vocab).scatter_add(2, places.expand(slots, batch, labels), values)
    found = torch.zeros(slots, batch, vocab, device=scope.device)
    add_columns(found, places.to(scope.device), values.to(scope.device))
    largest = float((found.cpu() - expected).abs().max())
    return {"passed": largest < 1e-3, "largest": largest}


def _model(layers: int = 2) -> NastModel:
    """A small network without any random number in training."""
    torch.manual_seed(0)
    off = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers", "unit_layers"), layers)
    vocabularies = {"text_vocab": TEXT_VOCAB, "unit_vocab": UNIT_VOCAB}
    return NastModel(preset("tiny", **vocabularies, **sizes, **off, max_position_shift=0)).train()


def _step(model: NastModel, device: torch.device, loss: str, frames: int, bf16: bool = False) -> tuple[float, Any]:
    """Loss and gradients (on the CPU) of a step without glancing."""
    batch = to_device(random_batch(frames, torch.Generator().manual_seed(0)), device)
    objective = Objective(TEXT_VOCAB - 1, UNIT_VOCAB - 1, loss, loss, autocast_bf16=bf16)
    value = objective(model.to(device), batch, ChunkPolicy(320))[0]
    value.backward()
    gradients = {name: parameter.grad.cpu() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return float(value.detach()), gradients


def _difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest norm of a difference, over the norm of the expected gradient."""
    norms = {name: float(value.norm()) for name, value in expected.items()}
    smallest = 1e-4 * max(norms.values())  # below, only rounding is left of a gradient
    return max(float((found[name] - expected[name]).norm()) / max(norm, smallest) for name, norm in norms.items())


def training_step(scope: Scope) -> dict[str, Any]:
    """Loss and gradients of a step in fp32 against the CPU, with CTC and NMLA, sentences of two lengths."""
    figures: dict[str, Any] = {}
    frames = 300 if scope.small else 2500
    for loss in ("ctc", "nmla"):
        expected, gradients = _step(_model(), torch.device("cpu"), loss, frames)
        found, others = _step(_model(), scope.device, loss, frames)
        figures[f"{loss}_loss"] = abs(found - expected) / max(abs(expected), 1e-6)
        figures[f"{loss}_gradients"] = _difference(others, gradients)
    limits = {"loss": LOSS_TOLERANCE, "gradients": GRADIENT_TOLERANCE}
    passed = all(value <= limits[name.partition("_")[2]] for name, value in figures.items())
    return {"passed": passed, **figures}


def checkpointed(scope: Scope) -> dict[str, Any]:
    """Checkpointed activations on the device: the gradients of the same step without."""
    frames = 300 if scope.small else 2500
    loss, gradients = _step(_model(), scope.device, "nmla", frames)
    model = _model()
    model.checkpoint_activations()
    again, others = _step(model, scope.device, "nmla", frames)
    difference = _difference(others, gradients)
    return {"passed": abs(again - loss) <= 1e-5 and difference <= GRADIENT_TOLERANCE, "gradients": difference}


def compiled(scope: Scope) -> dict[str, Any]:
    """Compiled layers on the device in bf16: the loss to 1e-3. In a small run the layers are traced, not compiled."""
    frames = 300 if scope.small else 2500
    loss, _ = _step(_model(1), scope.device, "nmla", frames, bf16=True)
    model = _model(1)
    model.compile_layers("eager" if scope.small else "inductor")
    again, _ = _step(model, scope.device, "nmla", frames, bf16=True)
    return {"passed": abs(again - loss) <= 1e-3, "difference": abs(again - loss)}


def streaming(scope: Scope) -> dict[str, Any]:
    """A stream and the offline pass on the device: equal labels, ties left out."""
    model = random_model("tiny" if scope.small else "base", 4.0).to(scope.device)
    geometry = model.geometry(ChunkPolicy(320))
    fbank = torch.randn(1, 200 if scope.small else 400, 80, generator=torch.Generator().manual_seed(0)).to(scope.device)
    with torch.inference_mode():
        text, units, _ = stream(model, fbank, geometry)
        whole = model(fbank, None, geometry.policy)
    equal, ties = compare((text, whole.text_logits), (units, whole.unit_logits))
    largest = float((text - whole.text_logits).abs().max()) if text.shape == whole.text_logits.shape else None
    return {"passed": equal, "tied_slots": ties, "largest": largest}


CHECKS = (
    translations, engine, alignment, sums_by_relation, columns, training_step, checkpointed, streaming, compiled,
)  # fmt: skip


def benchmarks(scope: Scope) -> Iterator[tuple[str, list[str]]]:
    """Names and flags of the parts of ``nast-s2x benchmark`` to run."""
    size = ["--preset", "tiny"] if scope.small else []
    for frames in ("300",) if scope.small else ("40000", "6000"):
        for dtype in ("fp32", "bf16") if scope.small else ("bf16", "fp32", "fp16"):
            for loss in ("nmla", "ctc"):
                yield (
                    f"training_{loss}_{dtype}_{frames}",
                    ["training", "--loss", loss, "--dtype", dtype, "--frames", frames, *size],
                )
    seconds = "1" if scope.small else "15"
    for dtype in ("fp32",) if scope.small else ("fp32", "bf16"):
        yield f"streaming_{dtype}", ["streaming", "--seconds", seconds, "--dtype", dtype, *size]
    streams = "1,2" if scope.small else "1,64,320,640,1000"
    for dtype in ("fp32",) if scope.small else ("fp32", "bf16"):
        flags = ["--streams", streams, "--seconds", "1" if scope.small else "6", "--dtype", dtype]
        yield f"serving_{dtype}", ["serving", *flags, *size]
        if not scope.small:
            yield f"serving_voice_{dtype}", ["serving", *flags, "--speech"]
    yield "voice_fp32", ["voice", "--seconds", seconds, *size]
    length = "0.5" if scope.small else "10"
    beam = "1" if scope.small else "10"
    for dtype in ("fp32",) if scope.small else ("fp32", "bf16"):
        flags = ["--seconds", length, "--beams", beam, "--batch", "1", "--dtype", dtype]
        yield f"autoregressive_{dtype}", ["autoregressive", *flags, *size]


def run_benchmark(flags: Sequence[str], scope: Scope) -> dict[str, Any]:
    """The JSON of one part of ``nast-s2x benchmark``."""
    parser = argparse.ArgumentParser()
    benchmark.add_parser(parser.add_subparsers())
    args = parser.parse_args(["benchmark", *flags, "--device", str(scope.device), "--json"])
    args.threads = torch.get_num_threads()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        args.func(args)
    result: dict[str, Any] = json.loads(output.getvalue().splitlines()[-1])
    return result


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of ``work`` with its seconds; of a failure the error and where it arose."""
    begun = time.perf_counter()
    try:
        result = work()
    except ModuleNotFoundError as error:
        result = {"passed": False, "skipped": f"the package {error.name} is not installed"}
    except Exception as error:  # whatever it is, it is recorded and the next part runs
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        result = {"passed": False, "error": f"{type(error).__name__}: {error}", "where": where}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**result, "part_seconds": round(time.perf_counter() - begun, 2)}


def versions() -> dict[str, str | None]:
    """Versions of Python and of packages, None for those that are not installed."""
    found: dict[str, str | None] = {"nast_s2x": __version__, "python": platform.python_version()}
    for name in ("torch", "triton", "numpy", "ve-fairseq", "fairseq-fixed"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return {**found, "cuda": torch.version.cuda}


def run(scope: Scope, output: Path, limit: float) -> bool:
    """Run all parts and write the file; returns True if every check passed.

    Args:
        limit: seconds after which no other benchmark begins.
    """
    begun = time.perf_counter()
    checks: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    head = {
        "device": str(scope.device),
        "card": device_name(scope.device),
        "small": scope.small,
        "versions": versions(),
    }

    def save() -> bool:
        passed = len(checks) == len(CHECKS) and all(check["passed"] for check in checks.values())
        times = {"seconds": round(time.perf_counter() - begun, 1), "passed": passed}
        write_json(output, {**head, **times, "checks": checks, "benchmarks": measured}, indent=1)
        return passed

    for check in CHECKS:
        checks[check.__name__] = attempt(lambda check=check: check(scope))
        print(f"{check.__name__}: {json.dumps(checks[check.__name__])}", flush=True)
        save()
    for name, flags in benchmarks(scope):
        if time.perf_counter() - begun > limit:
            measured[name] = {"skipped": f"{limit:g} s had passed"}
            continue
        measured[name] = attempt(lambda flags=flags: run_benchmark(flags, scope))
        measured[name].pop("passed", None)
        print(f"{name}: {json.dumps(measured[name])}", flush=True)
        save()
    return save()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--small", action="store_true", help="small sizes, for a dry run on a CPU")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="JSON file to write")
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=300.0,
        metavar="S",
        help="no other benchmark begins after this time (default: 300)",
    )
    args = parser.parse_args(argv)
    try:
        scope = Scope(find_device(args.device), args.small)
        return 0 if run(scope, args.output, args.limit_seconds) else 1
    except NastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
