"""Chunk policies of a training run: drawn per update, and those of validation."""

import random
from collections.abc import Sequence

from nast_s2x.chunking import ChunkPolicy


def draw_policy(policies: Sequence[ChunkPolicy], seed: int, update: int) -> ChunkPolicy:
    """The policy of one update: first a chunk size, then one of its left contexts, each uniformly.

    The same on every process and after every resumption.
    """
    # A string seed is hashed by the generator itself, independently of Python's per-process hash salt.
    generator = random.Random(f"geometry-{seed}-{update}")
    name = generator.choice(list(dict.fromkeys(policy.name for policy in policies)))
    same = [policy for policy in policies if policy.name == name]
    return same[0] if len(same) == 1 else generator.choice(same)


def extremes(policies: Sequence[ChunkPolicy]) -> tuple[ChunkPolicy, ...]:
    """The policies of validation: those of the smallest and the largest chunk, once if they are the same."""
    return (policies[0],) if len(policies) == 1 else (policies[0], policies[-1])
