"""The parts ``streaming`` and ``attention`` of ``nast-s2x benchmark``, with random weights and random features."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from nast_s2x.benchmarks.timing import Setting, now, timed
from nast_s2x.chunking import FRAMES_PER_SECOND, ChunkGeometry, ChunkPolicy, SequenceLayout, SlotRates, attention_mask
from nast_s2x.device import DTYPES
from nast_s2x.errors import ConfigError
from nast_s2x.network import NastModel, positions_for_seconds, preset
from nast_s2x.network.attention import RelativeSelfAttention, Sight, merge_heads, split_heads
from nast_s2x.network.relations import Relations

TEXT_VOCAB = 10_000
UNIT_VOCAB = 1005
TIE = 1e-3
"""Slots whose two best labels are closer than this (log-probability) are left out of ``labels_equal``."""


def run_streaming(args: argparse.Namespace) -> dict[str, float | int | bool | str]:
    """A stream with caches, and the offline forward of the same network on every prefix at which the stream emits.

    Look-ahead is one chunk. The times are those of the network alone: features are made beforehand.

    Returns:
        cached_seconds (total, median of three streams), recomputed_seconds (total), offline_seconds (one forward of the
        whole source), speedup, real_time_factor (cached seconds per second of source), chunk_ms_first_third and
        chunk_ms_last_third (median time of a chunk in that stream), labels_equal (of the stream and the offline
        forward, without near-ties), tied_slots, chunks, seconds, chunk_ms, parameters, threads, device, dtype.
    Raises:
        ConfigError: not one chunk size in ms, or a device that is not available.
    """
    policy = one_policy(args.chunk_ms)
    if policy.is_offline:
        raise ConfigError("streaming needs --chunk-ms in ms, but it is offline")
    setting = Setting.of(args, "streaming", tuple(DTYPES))
    model = setting.convert(random_model(args.preset, args.seconds))
    geometry = model.geometry(policy)
    fbank = torch.randn(1, int(args.seconds * FRAMES_PER_SECOND), model.config.input_dim)
    fbank = fbank.to(setting.device, setting.dtype)
    with torch.inference_mode():
        warm_up = fbank[:, : 3 * (geometry.chunk_frames or 0)]
        stream(model, warm_up, geometry)
        runs = [stream(model, fbank, geometry)]
        begun = now(fbank.device)
        whole = model(fbank, None, policy)
        offline = now(fbank.device) - begun
        recomputed = recompute_prefixes(model, fbank, geometry)
        # The long measurement runs between the short ones, so that background load affects both.
        runs += [stream(model, fbank, geometry) for _ in range(2)]
    text, units, chunk_seconds = sorted(runs, key=lambda run: sum(run[2]))[1]
    equal, ties = compare((text, whole.text_logits), (units, whole.unit_logits))
    third = max(1, len(chunk_seconds) // 3)
    cached = sum(chunk_seconds)
    return {
        "cached_seconds": cached,
        "recomputed_seconds": recomputed,
        "offline_seconds": offline,
        "speedup": recomputed / cached,
        "real_time_factor": cached / args.seconds,
        "chunk_ms_first_third": 1000 * statistics.median(chunk_seconds[:third]),
        "chunk_ms_last_third": 1000 * statistics.median(chunk_seconds[-third:]),
        "labels_equal": equal,
        "tied_slots": ties,
        "chunks": len(chunk_seconds),
        "seconds": args.seconds,
        "chunk_ms": policy.chunk_ms,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
        **setting.describe(),
    }


def one_policy(chunk_ms: str) -> ChunkPolicy:
    """Return the policy of ``--chunk-ms``, with a look-ahead of one chunk.

    Raises:
        ConfigError: several chunk sizes, or text that is not a chunk size.
    """
    policies = ChunkPolicy.parse(chunk_ms)
    if len(policies) != 1:
        raise ConfigError(f"takes one --chunk-ms, got {chunk_ms}")
    return policies[0]


def random_model(name: str, seconds: float) -> NastModel:
    """A speech-to-unit network of a preset's size for ``seconds`` of speech, with random weights.

    Its label embeddings, which are also the output layers, are large enough for labels to vary between slots.
    """
    torch.manual_seed(0)
    # At least as many positions as published; longer sources need larger tables.
    text, unit = positions_for_seconds(seconds, SlotRates())
    config = preset(
        name,
        text_vocab=TEXT_VOCAB,
        unit_vocab=UNIT_VOCAB,
        max_text_positions=max(1024, text),
        max_unit_positions=max(1200, unit),
    )
    model = NastModel(config).eval()
    for decoder in (model.decoder, model.unit_decoder):
        torch.nn.init.normal_(decoder.embed_tokens.weight, std=config.decoder_dim**-0.5)
    return model


def pieces(frames: int, geometry: ChunkGeometry) -> list[tuple[int, int]]:
    """Cut ``frames`` feature frames at the emissions of a stream.

    Returns:
        (start, stop) of each piece; each completes a chunk, but the last piece ends the source.
    """
    edges, chunk = [0], 0
    while geometry.emission_frames(chunk) < frames:
        edges.append(geometry.emission_frames(chunk))
        chunk += 1
    return list(zip(edges, [*edges[1:], frames], strict=True))


def stream(model: NastModel, fbank: Tensor, geometry: ChunkGeometry) -> tuple[Tensor, Tensor, list[float]]:
    """Run a stream with caches.

    Args:
        fbank: (1, F, bins).
    Returns:
        text logits (1, N, V), unit logits (1, U, Vu), and the seconds of each piece.
    """
    state, text, units, seconds = model.init_state(geometry.policy), [], [], []
    for start, stop in pieces(fbank.size(1), geometry):
        begun = now(fbank.device)
        final = stop == fbank.size(1)
        output = model(fbank[:, start:stop], None, geometry.policy, state=state, final=final)
        seconds.append(now(fbank.device) - begun)
        text.append(output.text_logits)
        units.append(output.unit_logits)
    return torch.cat(text, 1), torch.cat(units, 1), seconds


def recompute_prefixes(model: NastModel, fbank: Tensor, geometry: ChunkGeometry) -> float:
    """Seconds to run the offline forward on each prefix at which the stream emits."""
    total = 0.0
    for _, stop in tqdm(pieces(fbank.size(1), geometry), desc="recomputed prefixes", leave=False):
        begun = now(fbank.device)
        model(fbank[:, :stop], None, geometry.policy)
        total += now(fbank.device) - begun
    return total


def compare(*pairs: tuple[Tensor, Tensor]) -> tuple[bool, int]:
    """Compare the best labels of pairs (output, reference) of logits (1, T, V).

    Returns:
        whether they are equal where the two best labels of the reference differ by at least :data:`TIE`, and the
        number of the other slots; (False, 0) if shapes differ.
    """
    equal, ties = True, 0
    for ours, reference in pairs:
        if ours.shape != reference.shape:
            return False, 0
        best = reference.log_softmax(-1).topk(2, dim=-1).values
        tied = best[..., 0] - best[..., 1] < TIE
        ties += int(tied.sum())
        equal &= bool(((ours.argmax(-1) == reference.argmax(-1)) | tied).all())
    return equal, ties


def run_attention(args: argparse.Namespace) -> dict[str, float | int | str]:
    """Relative self-attention of one layer, and the form that builds a (T, T, head size) tensor of relative embeddings.

    Forward and backward over the encoder frames of ``--seconds`` of source and their look-ahead copies.

    Returns:
        seconds and pairwise_seconds (medians), speedup, relation_bytes and pairwise_relation_bytes (the largest tensor
        of relative positions in each form), max_abs_difference of the outputs, frames (T), threads, device, dtype.
    Raises:
        ConfigError: not one chunk size, or a number type or device that cannot be measured.
    """
    geometry = ChunkGeometry(SlotRates(), one_policy(args.chunk_ms))
    setting = Setting.of(args, "attention")
    torch.manual_seed(0)
    config = preset(args.preset, text_vocab=10)
    layer = RelativeSelfAttention(config.encoder_dim, config.encoder_heads, config.max_relative_position, 0.0)
    layer.to(setting.device, setting.dtype)
    frames = geometry.length("encoder", int(args.seconds * FRAMES_PER_SECOND))
    if not frames:
        raise ConfigError(f"--seconds must be at least 0.01 for attention, but is {args.seconds:g}")
    per_chunk = geometry.per_chunk("encoder")
    sequence = SequenceLayout.plain(0, frames, per_chunk, device=setting.device)
    if per_chunk is not None:
        sequence = sequence + SequenceLayout.copies(
            (0, frames // per_chunk), per_chunk, per_chunk, frames, device=setting.device
        )
    relations = Relations.of(sequence, sequence, layer.clip)
    mask = attention_mask(sequence, sequence)
    x = torch.randn(args.batch or 1, len(sequence), config.encoder_dim).to(setting.device, setting.dtype)
    sights = [Sight(x.size(0), mask, relations)]
    seconds = median_seconds(setting.device, lambda: layer(x, sights).sum().backward())
    rows = relations.rows
    pairwise = median_seconds(setting.device, lambda: pairwise_attention(layer, x, rows, mask).sum().backward())
    with torch.no_grad():
        difference = float((layer(x, sights) - pairwise_attention(layer, x, rows, mask)).abs().max())
    size, head = len(sequence), config.encoder_dim // config.encoder_heads
    return {
        "seconds": seconds,
        "pairwise_seconds": pairwise,
        "speedup": pairwise / seconds,
        "relation_bytes": x.element_size() * x.size(0) * config.encoder_heads * size * (2 * layer.clip + 1),
        "pairwise_relation_bytes": x.element_size() * size * size * head,
        "max_abs_difference": difference,
        "frames": size,
        "threads": torch.get_num_threads(),
        **setting.describe(),
    }


def pairwise_attention(layer: RelativeSelfAttention, x: Tensor, relation: Tensor, mask: Tensor | None) -> Tensor:
    """Relative self-attention as defined by Shaw et al. (2018, equations 3 and 4), with one embedding for each pair.

    Args:
        layer: supplies the weights.
        x: (B, T, D).
        relation: row of the relative embeddings for each pair, (T, T).
        mask: (T, T), True = may attend; ``None``: all.
    Returns:
        (B, T, D)
    """
    query, key, value = (split_heads(part, layer.heads) for part in layer._project(x))
    query = query * query.size(-1) ** -0.5
    by_key, by_value = layer.relative_keys_embedding(relation), layer.relative_values_embedding(relation)
    scores = query @ key.transpose(-1, -2) + torch.einsum("bhqd,qkd->bhqk", query, by_key)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    return layer.out_proj(merge_heads(weights @ value + torch.einsum("bhqk,qkd->bhqd", weights, by_value)))


def median_seconds(device: torch.device, work: Callable[[], object], runs: int = 5) -> float:
    """Median time of ``runs`` calls, after one more call that is not timed."""
    work()
    return statistics.median(timed(device, work) for _ in range(runs))
