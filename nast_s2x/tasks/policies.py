"""Chunk policies of a training run: drawn per update, and those of validation."""

import random
from collections.abc import Sequence

from nast_s2x.chunking import ChunkPolicy


def draw_policy(policies: Sequence[ChunkPolicy], seed: int, update: int) -> ChunkPolicy:
    """The policy of one update: uniform, and the same on every process and after every resumption."""
    # A string seed is hashed by the generator itself, independently of Python's per-process hash salt.
    return random.Random(f"geometry-{seed}-{update}").choice(policies)


def extremes(policies: Sequence[ChunkPolicy]) -> tuple[ChunkPolicy, ...]:
    """The policies of validation: those of the smallest and the largest chunk, once if they are the same."""
    return (policies[0],) if len(policies) == 1 else (policies[0], policies[-1])
