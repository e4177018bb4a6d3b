#!/usr/bin/env python3
"""Offline generation, the same as ``nast-s2x generate``; also works from a clone that is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nast_s2x.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
