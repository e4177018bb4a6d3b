# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the example's ablation: four small speech-to-text models that differ in one thing each, at one small budget.
#
#   bash scripts/train.sh ablation --data DATA --save SAVE
#
#   multi    chunks of 320, 640 and 1280 ms and offline, look-ahead as long as the chunk, CTC
#   nmla     as multi, the last third of the updates with NMLA in place of CTC
#   single   as multi, but 320 ms chunks alone
#   nolook   as multi, without look-ahead
#
# Every variant starts from the same stage 0 (asr) and gets 900 updates on the same schedule; multi and nmla share the
# first 600 of them (start). Nothing is selected on dev: the last checkpoint of each is what counts.
# Stage asr is that of configs/tiny_espeak.sh: a folder that it has trained on the same data can be taken over.
# examples/espeak_fr_en/ablation.py runs this recipe, evaluates the variants and writes their table. Read by
# scripts/train.sh, which passes these flags to fairseq-train as they stand; DATA and SAVE are set there.

source "$(dirname "${BASH_SOURCE[0]}")/tiny_espeak.sh"  # COMMON, PROCESSES, STAGE_asr

STAGES=(asr start multi nmla single nolook)

# What all variants have in common. The learning rate ends at 0, so that no variant is cut off in mid-course; the
# schedule and glancing go by the update's number and run on where a variant is continued.
VARIANT=(
    --lr-scheduler polynomial_decay --total-num-update 900 --lr 2e-3 --warmup-updates 200
    --text-glancing 0.5:0.3@900
    --save-interval-updates 300 --validate-interval-updates 300
)
FROM_ASR=("${VARIANT[@]}" --finetune-from-model "$SAVE/asr/checkpoint_last.pt")
# Optimizer, schedule and place in the data are continued too.
FROM_START=("${VARIANT[@]}" --continue-once "$SAVE/start/checkpoint_last.pt" --max-update 900)

STAGE_start=("${FROM_ASR[@]}" --max-update 600 --text-loss ctc)
STAGE_multi=("${FROM_START[@]}" --text-loss ctc)
STAGE_nmla=("${FROM_START[@]}" --text-loss nmla --nmla-order 2 --nmla-normalization batch)
STAGE_single=("${FROM_ASR[@]}" --max-update 900 --text-loss ctc --chunk-ms 320)
STAGE_nolook=("${FROM_ASR[@]}" --max-update 900 --text-loss ctc --lookahead-ms 0)
