"""The part ``autoregressive`` of ``nast-s2x benchmark``: one pass against a model that decodes unit by unit."""

from __future__ import annotations

import argparse
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nast_s2x.benchmarks.streaming import random_model
from nast_s2x.chunking import FRAMES_PER_SECOND, ChunkPolicy
from nast_s2x.device import find_device, parse_dtype
from nast_s2x.errors import ConfigError
from nast_s2x.labels import NUM_SPECIALS, UnitLabels
from nast_s2x.network import NastConfig, NastModel

MIN_RUNS, MAX_RUNS = 3, 15
QUICK = {"seconds": (2.0, 10.0), "beams": (1, 10), "batch": (1,)}
FULL = {"seconds": (2.0, 5.0, 10.0, 20.0), "beams": (1, 10), "batch": (1, 16)}


def run_autoregressive(args: argparse.Namespace) -> dict[str, Any]:
    """Speech features to speech units, offline: this network's one pass against fairseq's ``s2ut_transformer``.

    Both have random weights, the same features, width, feed-forward size, heads, encoder layers, and as many decoder
    layers as our unit decoder has (our text decoder, which has no counterpart there, is run too). The autoregressive
    model decodes with fairseq's ``SequenceGenerator``, its caches, and a length forced to ``--units-per-second`` of
    speech; ours has no forced length. Both ways are timed in turn; times are medians.

    Returns:
        ``rows``, one for each length, batch and beam: seconds (of speech), batch, beam, units (forced, a sentence),
        nast_seconds and autoregressive_seconds (a batch), speedup, and the same with the smallest times
        (``_best``), which a loaded machine disturbs least. ``speedup_at_10s_beam_10`` where it was measured; sizes,
        number types and versions.

    Raises:
        ModuleNotFoundError: fairseq is not installed.
    """
    import fairseq

    device, dtype = find_device(args.device), parse_dtype(args.dtype)
    other_name = args.autoregressive_dtype or (args.dtype if args.dtype != "int8" else "fp32")
    torch.set_num_threads(args.threads)
    lengths, beams, batches = _sizes(args)
    policy = ChunkPolicy(None)
    ours = random_model(args.preset, max(lengths))
    theirs = build_s2ut(ours.config, args.decoder_layers)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    ours, theirs = ours.to(device).convert_for_inference(dtype), theirs.to(device, parse_dtype(other_name))
    rows = []
    cells = [(length, batch) for length in lengths for batch in batches]
    with torch.inference_mode(), tqdm(total=len(cells) * len(beams), desc="autoregressive", leave=False) as progress:
        for length, batch in cells:
            fbank = torch.randn(batch, int(length * FRAMES_PER_SECOND), ours.config.input_dim, device=device)
            for beam in beams:
                rows.append(_row(ours, theirs, fbank, policy, beam, length, args.units_per_second))
                progress.update()
    summary = next((row for row in rows if (row["seconds"], row["beam"], row["batch"]) == (10.0, 10, 1)), None)
    return {
        "rows": rows,
        "speedup_at_10s_beam_10": summary and summary["speedup"],
        "units_per_second": args.units_per_second,
        "preset": args.preset,
        "dtype": args.dtype,
        "autoregressive_dtype": other_name,
        "parameters": counts[0],
        "autoregressive_parameters": counts[1],
        "autoregressive_decoder_layers": len(theirs.decoder.layers),
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "fairseq": fairseq.__version__,
    }


def _sizes(args: argparse.Namespace) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """Lengths in seconds, beams and batch sizes asked for, or those of the full or the quick list."""
    defaults = QUICK if args.quick else FULL
    given = (args.seconds, args.beams, args.batch)
    lengths, beams, batches = (
        tuple(value) if value else default for value, default in zip(given, defaults.values(), strict=True)
    )
    if too_short := [length for length in lengths if length < 0.1]:
        raise ConfigError(f"--seconds must be at least 0.1 for this part, got {too_short[0]:g}")
    return lengths, beams, batches


def _row(
    ours: NastModel,
    theirs: nn.Module,
    fbank: Tensor,
    policy: ChunkPolicy,
    beam: int,
    seconds: float,
    units_per_second: float,
) -> dict[str, float | int]:
    units = max(1, round(seconds * units_per_second))
    generator = build_generator(theirs, beam, units)
    inputs = [fbank.to(next(model.encoder.parameters()).dtype) for model in (ours, theirs)]
    decoded = autoregressive_units(theirs, generator, inputs[1])
    assert all(len(sentence) == units for sentence in decoded), "the forced length was not kept"
    times = alternate(
        lambda: one_pass_units(ours, inputs[0], policy), lambda: autoregressive_units(theirs, generator, inputs[1])
    )
    nast, other = (statistics.median(part) for part in times)
    best = [min(part) for part in times]
    return {
        "seconds": seconds,
        "batch": fbank.size(0),
        "beam": beam,
        "units": units,
        "nast_seconds": nast,
        "autoregressive_seconds": other,
        "speedup": other / nast,
        "nast_seconds_best": best[0],
        "autoregressive_seconds_best": best[1],
        "speedup_best": best[1] / best[0],
    }


def one_pass_units(model: NastModel, fbank: Tensor, policy: ChunkPolicy) -> list[list[int]]:
    """Features (B, F, bins) to unit codes of each sentence: encoder, text decoder, unit decoder, collapse."""
    labels = model(fbank, None, policy).unit_logits.argmax(-1).tolist()
    units = UnitLabels.of_size(model.config.unit_vocab)
    return [units.collapser().push(row) for row in labels]


def autoregressive_units(model: nn.Module, generator: nn.Module, fbank: Tensor) -> list[list[int]]:
    """Features (B, F, bins) to the best unit codes of each sentence, unit by unit."""
    lengths = torch.full((fbank.size(0),), fbank.size(1), device=fbank.device)
    hypotheses = generator.generate([model], {"net_input": {"src_tokens": fbank, "src_lengths": lengths}})
    return [[label - NUM_SPECIALS for label in best[0]["tokens"].tolist()[:-1]] for best in hypotheses]


def build_s2ut(config: NastConfig, decoder_layers: int | None = None) -> nn.Module:
    """fairseq's ``s2ut_transformer`` with random weights and the sizes of ``config``.

    Args:
        decoder_layers: ``None``: as many as the unit decoder of ``config``.
    """
    from fairseq.data import Dictionary
    from fairseq.models.speech_to_speech.s2s_transformer import S2UTTransformerModel, s2ut_architecture_base

    units = Dictionary()
    for unit in range(config.unit_vocab - NUM_SPECIALS - 1):  # it has no blank
        units.add_symbol(str(unit))
    args = Namespace(
        encoder_embed_dim=config.encoder_dim,
        encoder_ffn_embed_dim=config.encoder_ffn_dim,
        encoder_layers=config.encoder_layers,
        encoder_attention_heads=config.encoder_heads,
        decoder_embed_dim=config.decoder_dim,
        decoder_ffn_embed_dim=config.decoder_ffn_dim,
        decoder_layers=config.unit_layers if decoder_layers is None else decoder_layers,
        decoder_attention_heads=config.decoder_heads,
        conv_channels=2 * config.encoder_dim,
        share_decoder_input_output_embed=True,
        input_feat_per_channel=config.input_dim,
        input_channels=1,
        max_source_positions=6000,
        max_target_positions=4096,
        n_frames_per_step=1,
        target_speaker_embed=False,
        target_is_code=True,
    )
    s2ut_architecture_base(args)
    task = SimpleNamespace(args=args, target_dictionary=units, multitask_tasks={})
    torch.manual_seed(0)
    return S2UTTransformerModel.build_model(args, task).eval()


def build_generator(model: nn.Module, beam: int, units: int) -> nn.Module:
    """fairseq's generator that decodes exactly ``units`` units with caches and a beam of ``beam``."""
    from fairseq.sequence_generator import SequenceGenerator

    return SequenceGenerator(
        [model], model.decoder.dictionary, beam_size=beam, max_len_a=0, max_len_b=units, min_len=units
    )


def alternate(
    first: Callable[[], object], second: Callable[[], object], budget: float = 10.0
) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds of calls of either, in turn: 3 to 15 of each, as many as fit into ``budget`` seconds.

    The short one is timed twice in each turn, before and after the long one, so that background load affects both.
    """
    first()
    times: tuple[list[float], list[float]] = ([], [])
    begun = time.perf_counter()
    while len(times[1]) < MIN_RUNS or (len(times[1]) < MAX_RUNS and time.perf_counter() - begun < budget):
        for work, place in ((first, 0), (second, 1), (first, 0)):
            times[place].append(_timed(work))
    return times


def _timed(work: Callable[[], object]) -> float:
    _synchronise()
    start = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
