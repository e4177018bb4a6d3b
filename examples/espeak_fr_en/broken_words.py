#!/usr/bin/env python3
"""Counts the words of an evaluation that are no words: pieces that do not belong together.

python examples/espeak_fr_en/broken_words.py MANIFEST EVALUATION

MANIFEST is the corpus; a word of the output that no training translation has is broken, since the corpus is a closed
world. EVALUATION is a folder of `nast-s2x evaluate`. Prints a line for each chunk size.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nast_s2x.corpus import read_manifest
from nast_s2x.evaluation.log import read_log


def broken_words(known: set[str], texts: Iterable[str]) -> tuple[int, Counter[str]]:
    """Number of all words, and the broken ones with their counts."""
    words = Counter(word for text in texts for word in text.split())
    return sum(words.values()), Counter({word: count for word, count in words.items() if word not in known})


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="manifest of the corpus")
    parser.add_argument("evaluation", type=Path, help="folder of nast-s2x evaluate, text output")
    args = parser.parse_args(arguments)
    try:
        rows = read_manifest(args.manifest, required=("tgt_text", "split"))
        known = {word for row in rows if row.split == "train" for word in row.target_text.split()}
        logs = sorted(args.evaluation.glob("*/instances.log"), key=lambda path: (len(path.parent.name), path))
        if not logs:
            raise FileNotFoundError(f"{args.evaluation}: no CHUNK/instances.log")
        for log in logs:
            total, broken = broken_words(known, (" ".join(entry.words) for entry in read_log(log.parent)))
            share = 1000 * sum(broken.values()) / max(total, 1)
            examples = ", ".join(word for word, _ in broken.most_common(10))
            print(f"{log.parent.name}: {share:.1f} of 1,000 words ({examples})")
    except (ValueError, OSError) as error:
        print(f"broken_words.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
