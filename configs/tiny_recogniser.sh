# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the example's English recogniser, which measures how intelligible speech is: stage 0 alone, offline.
#
#   bash scripts/train.sh tiny_recogniser --data DATA --save SAVE
#
# DATA is made by `nast-s2x prepare` (--source-lang en --target-lang en --vocab-size 500) from the corpus of
# examples/espeak_fr_en/recogniser.py. Read by scripts/train.sh, which passes these flags to fairseq-train as they
# stand; DATA and SAVE are set there.

source "$(dirname "${BASH_SOURCE[0]}")/tiny_espeak.sh"  # COMMON, STAGE_asr

STAGES=(asr anneal)
PROCESSES=1
# A recogniser of finished recordings: the whole utterance is one chunk.
COMMON+=(--chunk-ms offline)
# For some hundred updates CTC predicts blanks alone.
STAGE_asr+=(--max-update 4500)

# The same in larger batches with a learning rate that ends at 0, from a bundle of what stage asr gave (START, the mean of
# its best checkpoints) or from its best checkpoint. bfloat16 saves time on a CPU that has it: BF16= leaves it out.
STAGE_anneal=(
    --target-text source --start-from "${START:-$SAVE/asr/checkpoint_best.pt}"
    --max-tokens 8000 --required-batch-size-multiple 1 ${BF16---autocast-bf16}
    --lr-scheduler polynomial_decay --lr 1e-3 --warmup-updates 100 --total-num-update 2500 --max-update 2500
    --text-loss ctc --text-glancing 0.3
)
