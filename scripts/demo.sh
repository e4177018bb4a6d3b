#!/usr/bin/env bash
# French recordings become English text while they play; then offline; then SimulEval scores the bundled set.
# Installs what it needs first (no fairseq; SimulEval needs one small package compiled). Can be repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=${VENV:-.venv}
example=examples/espeak_fr_en
model=$example/bundle
output=${1:-$(mktemp -d "${TMPDIR:-/tmp}/nast-s2x-demo.XXXXXX")}
mkdir -p "$output"

step() { printf '\n== %s\n' "$*"; }

step "Installation"
bash scripts/install.sh simuleval
nast=$VENV/bin/nast-s2x

mapfile -t recordings < <(sed -n 1,3p "$example/recordings/source.txt")
recordings=("${recordings[@]/#/$example/recordings/}")

step "Streaming, chunks of 320 ms: each line is what came out, and how much of the recording had been heard"
"$nast" translate "${recordings[@]}" --model "$model" --chunk-ms 320 --real-time
step "References"
sed -n 1,3p "$example/recordings/target.txt"

step "The same model, offline"
"$nast" translate "${recordings[@]}" --model "$model" --offline

step "SimulEval on the bundled recordings, chunks of 320 ms"
# SimulEval reads audio paths as they stand in its list, so the list is made for this folder.
sed "s#^#$PWD/$example/recordings/#" "$example/recordings/source.txt" >"$output/source.txt"
"$VENV/bin/simuleval" --agent-class nast_s2x.agents.speech_to_text.NastSpeechToTextAgent \
    --model "$PWD/$model" --chunk-ms 320 --source "$output/source.txt" --target "$example/recordings/target.txt" \
    --source-segment-size 40 --quality-metrics BLEU --latency-metrics AL LAAL StartOffset \
    --output "$output/simuleval" >"$output/simuleval.log" 2>&1 ||
    { tail -n 20 "$output/simuleval.log" >&2; exit 1; }
cat "$output/simuleval/scores.tsv"
printf '\nLatencies are milliseconds of source audio. Logs and every translation: %s\n' "$output"
