#!/usr/bin/env bash
# Score a bundle with SimulEval at every chunk size; prints the rows of the model card's table.
#
#   bash examples/espeak_fr_en/score.sh BUNDLE SOURCE.txt TARGET.txt OUTPUT [CHUNK...]
#
# SOURCE lists one audio path a line, TARGET the references; logs go to OUTPUT, one folder for each chunk size.
set -euo pipefail
(($# >= 4)) || { sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
simuleval=${VENV:-$root/.venv}/bin/simuleval
bundle=$1 source=$2 target=$3 output=$4
shift 4
(($#)) || set -- 320 640 1280 offline

echo "| chunk (ms) | BLEU | AL (ms) | LAAL (ms) | StartOffset (ms) |"
echo "|---|---|---|---|---|"
for chunk in "$@"; do
    folder=$output/$chunk
    mkdir -p "$folder"
    "$simuleval" --agent-class nast_s2x.agents.speech_to_text.NastSpeechToTextAgent \
        --model "$bundle" --chunk-ms "$chunk" --source "$source" --target "$target" \
        --source-segment-size 40 --quality-metrics BLEU --latency-metrics AL LAAL StartOffset \
        --output "$folder" >"$folder/simuleval.log" 2>&1 || { tail -n 20 "$folder/simuleval.log" >&2; exit 1; }
    awk -F '\t' -v chunk="$chunk" '
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
        NR == 2 { printf "| %s | %s | %.0f | %.0f | %.0f |\n", chunk, $column["BLEU"], $column["AL"], $column["LAAL"], $column["StartOffset"] }
    ' "$folder/scores.tsv"
done
