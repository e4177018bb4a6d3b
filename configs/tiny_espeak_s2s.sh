# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the example's voice: small speech-to-speech model (French to English units), on two CPU cores.
#
#   bash scripts/train.sh tiny_espeak_s2s --data DATA --save SAVE
#
# DATA is made by `nast-s2x prepare` from the corpus of examples/espeak_fr_en with units (`nast-s2x units extract`).
# Stages asr and text are those of configs/tiny_espeak.sh (asr and ctc there): folders that it has trained on the same
# texts can be taken over under these names. Read by scripts/train.sh, which passes these flags to fairseq-train as
# they stand; DATA and SAVE are set there.

source "$(dirname "${BASH_SOURCE[0]}")/tiny_espeak.sh"  # COMMON, INVERSE_SQRT, PROCESSES, STAGE_asr, STAGE_ctc

STAGES=(asr text units ctc positions nmla)
# Translation to text with CTC, from stage 0: the text recipe's stage of the name ctc.
STAGE_text=("${STAGE_ctc[@]}")

# Stage 1, text and units with CTC, in two runs of the learning rate's schedule: the unit decoder starts here.
STAGE_units=(
    --arch nast_s2s_tiny
    --finetune-from-model "$SAVE/text/checkpoint_best.pt"
    --best-checkpoint-metric unit_bleu
    "${INVERSE_SQRT[@]}" --lr 1.5e-3 --warmup-updates 300 --max-update 1000
    --text-loss ctc --unit-loss ctc --text-glancing 0.3 --unit-glancing 0.3:0.1@2600
)
STAGE_ctc=(
    --arch nast_s2s_tiny
    --finetune-from-model "$SAVE/units/checkpoint_last.pt"
    --best-checkpoint-metric unit_bleu
    "${INVERSE_SQRT[@]}" --lr 1.5e-3 --warmup-updates 150 --max-update 1500
    --text-loss ctc --unit-loss ctc --text-glancing 0.3 --unit-glancing 0.2:0.1@1500
)

# CTC goes on with sinusoids beside the unit decoder's learned positions. Those had come to tell the six slots of a text slot
# apart (neighbours six slots off have a cosine of 0.74), but not near slots from far ones (24 off: 0.74 too).
STAGE_positions=(
    --arch nast_s2s_tiny --unit-sinusoids 0.25
    --finetune-from-model "$SAVE/ctc/checkpoint_last.pt"
    --best-checkpoint-metric unit_bleu --save-interval-updates 250 --validate-interval-updates 250
    "${INVERSE_SQRT[@]}" --lr 1.5e-3 --warmup-updates 100 --max-update 500
    --text-loss ctc --unit-loss ctc --text-glancing 0.3 --unit-glancing 0.1
)

# Stage 2, text and units with NMLA (bigrams), from the whole model of stage 1; the learning rate ends at 0.
STAGE_nmla=(
    --arch nast_s2s_tiny --unit-sinusoids 0.25
    --finetune-from-model "$SAVE/positions/checkpoint_last.pt"
    --best-checkpoint-metric unit_bleu --save-interval-updates 200 --validate-interval-updates 200
    --lr-scheduler polynomial_decay --total-num-update 1000 --lr 6e-4 --warmup-updates 50 --max-update 1000
    --text-loss nmla --unit-loss nmla --nmla-order 2 --nmla-normalization batch
    --text-glancing 0.3 --unit-glancing 0.1
)
