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
from nast_s2x.benchmarks.timing import Setting, device_of, timed
from nast_s2x.chunking import FRAMES_PER_SECOND, ChunkPolicy
from nast_s2x.device import DTYPES, parse_dtype
from nast_s2x.errors import ConfigError
from nast_s2x.labels import NUM_SPECIALS, UnitLabels
from nast_s2x.network import NastConfig, NastModel

MIN_RUNS, MAX_RUNS = 3, 15
MAX_UNITS = 4096
"""Target positions of the autoregressive model, one of them for the end of the sentence."""
QUICK = {"seconds": (2.0, 10.0), "beams": (1, 10), "batch": (1,)}
FULL = {"seconds": (2.0, 5.0, 10.0, 20.0), "beams": (1, 10), "batch": (1, 16)}


def run_autoregressive(args: argparse.Namespace) -> dict[str, Any]:
    """Speech features to speech units, offline: one pass of this network, and fairseq's ``s2ut_transformer``.

    Both have random weights, the same features, width, feed-forward size, heads, encoder layers, and as many layers in
    the autoregressive decoder as in the unit decoder. The text decoder, which has no counterpart there, is run too. The
    autoregressive model decodes with fairseq's ``SequenceGenerator``, with caches, exactly ``--units-per-second`` units
    for each second of speech; the length of the other output is not forced. Both are timed in turn; times are medians.

    Returns:
        ``rows``, one for each length, batch and beam: seconds (of speech), batch, beam, units (forced, per sentence),
        nast_seconds and autoregressive_seconds (per batch), speedup, and the same with the smallest times (``_best``),
        which background load affects least. ``speedup_at_10s_beam_10``, None if it was not measured; units_per_second,
        preset, number types, parameters, layers, device, threads and versions.
    Raises:
        ModuleNotFoundError: fairseq is not installed.
        ConfigError: sources too short or too long, or a number type or device that is not available.
    """
    import fairseq

    lengths, beams, batches = _sizes(args)
    setting = Setting.of(args, "autoregressive", tuple(DTYPES))
    other_name = args.autoregressive_dtype or (args.dtype if args.dtype != "int8" else "fp32")
    policy = ChunkPolicy(None)
    ours = random_model(args.preset, max(lengths))
    theirs = build_s2ut(ours.config, args.decoder_layers)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    ours, theirs = setting.convert(ours), theirs.to(setting.device, parse_dtype(other_name))
    rows = []
    cells = [(length, batch) for length in lengths for batch in batches]
    with torch.inference_mode(), tqdm(total=len(cells) * len(beams), desc="autoregressive", leave=False) as progress:
        for length, batch in cells:
            fbank = torch.randn(batch, int(length * FRAMES_PER_SECOND), ours.config.input_dim, device=setting.device)
            for beam in beams:
                rows.append(_row(ours, theirs, fbank, policy, beam, length, args.units_per_second))
                progress.update()
    summary = next((row for row in rows if (row["seconds"], row["beam"], row["batch"]) == (10.0, 10, 1)), None)
    return {
        "rows": rows,
        "speedup_at_10s_beam_10": summary and summary["speedup"],
        "units_per_second": args.units_per_second,
        "preset": args.preset,
        "autoregressive_dtype": other_name,
        "parameters": counts[0],
        "autoregressive_parameters": counts[1],
        "autoregressive_decoder_layers": len(theirs.decoder.layers),
        **setting.describe(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "fairseq": fairseq.__version__,
    }


def _sizes(args: argparse.Namespace) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """Lengths in seconds, beams and batch sizes of the flags, by default those of :data:`QUICK` or :data:`FULL`."""
    defaults = QUICK if args.quick else FULL
    given = (args.seconds, args.beams, args.batch)
    lengths, beams, batches = (
        tuple(value) if value else default for value, default in zip(given, defaults.values(), strict=True)
    )
    if too_short := [length for length in lengths if length < 0.1]:
        raise ConfigError(f"--seconds must be at least 0.1 for this part, got {too_short[0]:g}")
    if (units := round(max(lengths) * args.units_per_second)) >= MAX_UNITS:
        raise ConfigError(f"--seconds times --units-per-second must be less than {MAX_UNITS}, but is {units}")
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
        device_of(ours),
        lambda: one_pass_units(ours, inputs[0], policy),
        lambda: autoregressive_units(theirs, generator, inputs[1]),
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
    """Unit codes of each sentence from features (B, F, bins): encoder, text decoder, unit decoder, collapse."""
    labels = model(fbank, None, policy).unit_logits.argmax(-1).tolist()
    units = UnitLabels.of_size(model.config.unit_vocab)
    return [units.collapser().push(row) for row in labels]


def autoregressive_units(model: nn.Module, generator: nn.Module, fbank: Tensor) -> list[list[int]]:
    """Unit codes of the best hypothesis for each sentence from features (B, F, bins), decoded unit by unit."""
    lengths = torch.full((fbank.size(0),), fbank.size(1), device=fbank.device)
    hypotheses = generator.generate([model], {"net_input": {"src_tokens": fbank, "src_lengths": lengths}})
    return [[label - NUM_SPECIALS for label in best[0]["tokens"].tolist()[:-1]] for best in hypotheses]


def build_s2ut(config: NastConfig, decoder_layers: int | None = None) -> nn.Module:
    """fairseq's ``s2ut_transformer`` with random weights and the sizes of ``config``.

    Args:
        decoder_layers: number of decoder layers; ``None``: as many as the unit decoder of ``config`` has.
    """
    from fairseq.data import Dictionary
    from fairseq.models.speech_to_speech.s2s_transformer import S2UTTransformerModel, s2ut_architecture_base

    units = Dictionary()
    for unit in range(config.unit_vocab - NUM_SPECIALS - 1):  # without the blank label
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
        max_target_positions=MAX_UNITS,
        n_frames_per_step=1,
        target_speaker_embed=False,
        target_is_code=True,
    )
    s2ut_architecture_base(args)
    task = SimpleNamespace(args=args, target_dictionary=units, multitask_tasks={})
    torch.manual_seed(0)
    return S2UTTransformerModel.build_model(args, task).eval()


def build_generator(model: nn.Module, beam: int, units: int) -> nn.Module:
    """fairseq's generator for beam search with caches, which decodes exactly ``units`` units."""
    from fairseq.sequence_generator import SequenceGenerator

    return SequenceGenerator(
        [model], model.decoder.dictionary, beam_size=beam, max_len_a=0, max_len_b=units, min_len=units
    )


def alternate(
    device: torch.device, first: Callable[[], object], second: Callable[[], object], budget: float = 10.0
) -> tuple[Sequence[float], Sequence[float]]:
    """Time two functions in turn.

    ``first`` runs before and after each run of ``second``, so that background load affects both.

    Args:
        budget: seconds after which no other turn begins, once there have been 3 of them; there are at most 15.
    Returns:
        seconds of the runs of ``first`` and of ``second``.
    """
    first()
    times: tuple[list[float], list[float]] = ([], [])
    begun = time.perf_counter()
    while len(times[1]) < MIN_RUNS or (len(times[1]) < MAX_RUNS and time.perf_counter() - begun < budget):
        for work, place in ((first, 0), (second, 1), (first, 0)):
            times[place].append(timed(device, work))
    return times
