#!/usr/bin/env bash
# Train the stages of a recipe: `nast-s2x train` of this folder's environment.
#
#   bash scripts/train.sh RECIPE --data DIR --save DIR [--stage NAME]... [--processes N] [--set NAME=VALUE]... [--dry-run] [-- FLAGS...]
#
# See `nast-s2x train --help` and configs/README.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${VENV:-$root/.venv}/bin/python
[ -x "$python" ] || python=python3
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m nast_s2x.cli.main train "$@"
