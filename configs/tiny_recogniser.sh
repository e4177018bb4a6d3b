# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the example's English recogniser, which measures how intelligible speech is: stage 0 alone, offline.
#
#   bash scripts/train.sh tiny_recogniser --data DATA --save SAVE
#
# DATA is made by `nast-s2x prepare` (--source-lang en --target-lang en --vocab-size 500) from the corpus of
# examples/espeak_fr_en/recogniser.py. Read by scripts/train.sh, which passes these flags to fairseq-train as they
# stand; DATA and SAVE are set there.

source "$(dirname "${BASH_SOURCE[0]}")/tiny_espeak.sh"  # COMMON, STAGE_asr

STAGES=(asr)
PROCESSES=1
# A recogniser of finished recordings: the whole utterance is one chunk.
COMMON+=(--chunk-ms offline)
# For some hundred updates CTC predicts blanks alone.
STAGE_asr+=(--max-update 4500)
