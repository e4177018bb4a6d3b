#!/usr/bin/env bash
# Score a bundle with SimulEval at every chunk size; prints the rows of the model card's table.
#
#   bash examples/espeak_fr_en/score.sh [--speech] BUNDLE SOURCE.txt TARGET.txt OUTPUT [CHUNK...]
#
# SOURCE lists one audio path a line, TARGET the references; logs go to OUTPUT, one folder for each chunk size.
# --speech scores the latency of speech output (its quality: intelligibility.py --wavs 320=OUTPUT/320/wavs).
set -euo pipefail
agent=speech_to_text.NastSpeechToTextAgent columns=(BLEU AL LAAL StartOffset)
flags=(--quality-metrics BLEU --latency-metrics "${columns[@]:1}")
if [[ ${1:-} == --speech ]]; then
    shift
    agent=speech_to_speech.NastSpeechToSpeechAgent columns=(StartOffset EndOffset ATD NumChunks)
    flags=(--target-type speech --latency-metrics "${columns[@]}")
fi
(($# >= 4)) || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
simuleval=${VENV:-$root/.venv}/bin/simuleval
bundle=$1 source=$2 target=$3 output=$4
shift 4
(($#)) || set -- 320 640 1280 offline

printf '| chunk (ms) |'; printf ' %s |' "${columns[@]}"; printf '\n|---|'; printf -- '---|%.0s' "${columns[@]}"; echo
for chunk in "$@"; do
    folder=$output/$chunk
    mkdir -p "$folder"
    "$simuleval" --agent-class "nast_s2x.agents.$agent" \
        --model "$bundle" --chunk-ms "$chunk" --source "$source" --target "$target" \
        --source-segment-size 40 "${flags[@]}" \
        --output "$folder" >"$folder/simuleval.log" 2>&1 || { tail -n 20 "$folder/simuleval.log" >&2; exit 1; }
    awk -F '\t' -v chunk="$chunk" -v wanted="${columns[*]}" '
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
        NR == 2 {
            printf "| %s |", chunk
            count = split(wanted, names, " ")
            for (i = 1; i <= count; i++) printf (names[i] ~ /BLEU|NumChunks/ ? " %.1f |" : " %.0f |"), $column[names[i]]
            printf "\n"
        }
    ' "$folder/scores.tsv"
done
