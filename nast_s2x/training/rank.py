"""One process of PyTorch's launcher: ``fairseq-train`` with the place in the training that the launcher gave it.

fairseq reads this place itself only on machines with several GPUs, so it is given by flags. The launcher runs this file
as a script: as a module of the package it would import the package before fairseq's ``--user-dir`` does, which then
registers nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def place_flags(environment: Mapping[str, str]) -> list[str]:
    """Flags of ``fairseq-train`` for the variables of torchrun."""
    return [
        *("--distributed-world-size", environment["WORLD_SIZE"], "--distributed-rank", environment["RANK"]),
        *("--device-id", environment["LOCAL_RANK"], "--distributed-init-method", "env://", "--distributed-no-spawn"),
    ]


def main() -> None:
    """Run ``fairseq-train`` with the arguments of this process."""
    from fairseq_cli.train import cli_main

    sys.argv += place_flags(os.environ)
    cli_main()


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, whose modules are those of a package
    main()
