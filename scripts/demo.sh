#!/usr/bin/env bash
# French recordings become English text and an English voice while they play; then text offline; then SimulEval scores
# the bundled set.
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
bash scripts/install.sh simuleval
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

step "SimulEval on the bundled recordings, chunks of 320 ms"
# SimulEval reads audio paths as they stand in its list, so the list is made for this folder.
sed "s#^#$PWD/$example/recordings/#" "$example/recordings/source.txt" >"$output/source.txt"
"$VENV/bin/simuleval" --agent-class nast_s2x.agents.speech_to_text.NastSpeechToTextAgent \
    --model "$PWD/$model" --chunk-ms 320 --source "$output/source.txt" --target "$example/recordings/target.txt" \
    --source-segment-size 40 --quality-metrics BLEU --latency-metrics AL LAAL StartOffset \
    --output "$output/simuleval" >"$output/simuleval.log" 2>&1 ||
    { tail -n 20 "$output/simuleval.log" >&2; exit 1; }
cat "$output/simuleval/scores.tsv"
printf '\nTo listen (left: French; right: English when it was available; captions beside them as .srt):\n'
printf '  %s\n' "$output"/speech/*.stereo.wav
printf '\nLatencies are milliseconds of source audio. Logs and every translation: %s\n' "$output"
