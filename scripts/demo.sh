#!/usr/bin/env bash
# French recordings become English text and an English voice while they play; then text offline; then an evaluation of
# the bundled set, with a report.
# Installs what it needs first (no fairseq; SimulEval needs one small package compiled). Can be repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=${VENV:-.venv}
example=examples/espeak_fr_en
model=$example/bundle
voice=$example/speech_bundle
output=${1:-$(mktemp -d "${TMPDIR:-/tmp}/nast-s2x-demo.XXXXXX")}
mkdir -p "$output"

step() { printf '\n== %s\n' "$*"; }

step "Installation"
bash scripts/install.sh evaluate
nast=$VENV/bin/nast-s2x

mapfile -t recordings < <(sed -n 1,3p "$example/recordings/source.txt")
recordings=("${recordings[@]/#/$example/recordings/}")

step "Streaming, chunks of 320 ms: each line is what came out, and how much of the recording had been heard"
"$nast" translate "${recordings[@]}" --model "$model" --chunk-ms 320 --real-time
step "References"
sed -n 1,3p "$example/recordings/target.txt"

step "Speech to speech, chunks of 320 ms: an English voice, placed where it was available"
"$nast" translate "${recordings[@]}" --model "$voice" --chunk-ms 320 --speech --output "$output/speech"
step "What an English recogniser of the example hears in that voice"
"$nast" generate "$output"/speech/*_0000?.wav --model "$example/recogniser" --no-progress | grep '^D-'

step "The text model again, offline"
"$nast" translate "${recordings[@]}" --model "$model" --offline

step "Evaluation on the bundled recordings: SimulEval's evaluator, speech heard by the example's recogniser"
"$nast" evaluate --model "$voice" --source "$example/recordings/source.txt" --target "$example/recordings/target.txt" \
    --chunk-ms 320,offline --target-type speech --recogniser "$example/recogniser" --output "$output/evaluation"
printf '\nTo listen (left: French; right: English when it was available; captions beside them as .srt):\n'
printf '  %s\n' "$output"/speech/*.stereo.wav
printf '\nTo look at and listen to: %s\n' "$output/evaluation/report.html"
printf 'Latencies are milliseconds of source audio. Logs and every translation: %s\n' "$output"
