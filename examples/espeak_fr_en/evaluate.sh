#!/usr/bin/env bash
# Evaluate the example's bundles on the corpus's test split at every chunk size, text and speech.
#
#   bash examples/espeak_fr_en/evaluate.sh UNITS.tsv OUTPUT [RESULTS]
#
# UNITS.tsv is the corpus manifest with units (`nast-s2x units extract`). OUTPUT gets the evaluations, text and speech,
# with their reports; interrupted, the same command goes on. RESULTS gets the small files that are committed under
# results/: scores without the paths of this machine, and plots.
set -euo pipefail
(($# >= 2)) || { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${VENV:-$example/../../.venv}/bin
units=$1 output=$2 results=${3:-}

evaluate() { "$bin/nast-s2x" evaluate --manifest "$units" --split test --threads 2 "$@"; }
evaluate --model "$example/bundle" --chunk-ms 160,320,640,1280,offline --output "$output/text"
evaluate --model "$example/speech_bundle" --chunk-ms 160,320,640,1280,offline --output "$output/speech" \
    --target-type speech --recogniser "$example/recogniser"
[[ -z $results ]] && exit

mkdir -p "$results"
"$bin/python" - "$output" "$results" <<'PYTHON'
import json
import shutil
import sys
from pathlib import Path

output, results = map(Path, sys.argv[1:])
for kind in ("text", "speech"):
    scores = json.loads((output / kind / "scores.json").read_text(encoding="utf-8"))
    for part in scores["settings"].values():
        if isinstance(part, dict) and "path" in part:
            part["path"] = Path(part["path"]).name  # where it lay on this machine tells nobody anything
    (results / f"{kind}.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    for latency in ("AL" if kind == "text" else "AL_words", "StartOffset"):
        shutil.copyfile(output / kind / f"quality_latency_{latency}.png", results / f"{kind}_{latency}.png")
PYTHON
