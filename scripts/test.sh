#!/usr/bin/env bash
# Runs the tests, installing first what they need. Arguments go to pytest:
#   bash scripts/test.sh                          everything but the slow checks
#   bash scripts/test.sh --slow                   the slow checks too
#   bash scripts/test.sh tests/test_ctc.py -k merge
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh all
exec "${VENV:-.venv}/bin/python" -m pytest "$@"
