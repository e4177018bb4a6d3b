#!/usr/bin/env bash
# Runs ruff, mypy and the tests after installing what they need. With arguments, which are those of pytest, only pytest:
#   bash scripts/test.sh                          everything but the slow checks
#   bash scripts/test.sh --slow                   the slow checks too
#   bash scripts/test.sh tests/test_ctc.py -k merge
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh all
bin=${VENV:-.venv}/bin
if [ $# -eq 0 ] || [ "$*" = --slow ]; then
    # Two processes; the tests of a file share what they make, so they stay together.
    set -- -n 2 --dist loadfile "$@"
    "$bin/ruff" check -q nast_s2x tests scripts examples
    "$bin/ruff" format -q --check nast_s2x tests scripts examples
    "$bin/python" -m mypy
fi
exec "$bin/python" -m pytest "$@"
