#!/usr/bin/env bash
# Translates bundled French recordings to English text and speech as streams, then offline, then evaluates the bundled
# model and writes a report. Installs what it needs first (neither fairseq nor SimulEval). Can be repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=${VENV:-.venv}
# The example models are small: a second thread saves nothing, and costs much on a machine with other work.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
example=examples/espeak_fr_en
model=$example/bundle
speech_model=$example/speech_bundle
output=${1:-$(mktemp -d "${TMPDIR:-/tmp}/nast-s2x-demo.XXXXXX")}
mkdir -p "$output"

step() { printf '\n== %s\n' "$*"; }

step "Installation"
bash scripts/install.sh evaluate
nast=$VENV/bin/nast-s2x

recordings=() # without mapfile, which the bash of macOS does not have
while IFS= read -r name; do recordings+=("$example/recordings/$name"); done < <(sed -n 1,3p "$example/recordings/source.txt")

step "Streaming at the speed of speech, chunks of 320 ms: each line is an emission and the source audio it required"
"$nast" translate "${recordings[0]}" --model "$model" --chunk-ms 320 --real-time
step "References of this recording and the next two"
sed -n 1,3p "$example/recordings/target.txt"

step "Speech to speech, chunks of 320 ms: English speech, placed where it was available"
"$nast" translate "${recordings[@]}" --model "$speech_model" --chunk-ms 320 --speech --output "$output/speech"
step "That speech, transcribed by the English recogniser of the example"
"$nast" generate "$output"/speech/*_0000?.wav --model "$example/recogniser" --no-progress | grep '^D-'

step "The text model again, offline"
"$nast" translate "${recordings[@]}" --model "$model" --offline

step "Evaluation on the bundled recordings: quality, latency, and a report"
"$nast" evaluate --model "$speech_model" --source "$example/recordings/source.txt" --target "$example/recordings/target.txt" \
    --chunk-ms 320,offline --target-type speech --recogniser "$example/recogniser" --output "$output/evaluation"
printf '\nTo listen (left: French; right: English when it was available; captions beside them as .srt):\n'
printf '  %s\n' "$output"/speech/*.stereo.wav
printf '\nTo look at and listen to: %s\n' "$output/evaluation/report.html"
printf 'Latencies are milliseconds of source audio. Logs and every translation: %s\n' "$output"
