# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the example's voice: small speech-to-speech model (French to English units), on two CPU cores.
#
#   bash scripts/train.sh tiny_espeak_s2s --data DATA --save SAVE
#   TEXT=examples/espeak_fr_en/bundle bash scripts/train.sh tiny_espeak_s2s --data DATA --save SAVE --stage units --stage speech
#
# DATA is made by `nast-s2x prepare` from the corpus of examples/espeak_fr_en with units (`nast-s2x units extract`).
# The first three stages are those of configs/tiny_espeak.sh; TEXT, a bundle or a checkpoint that they have given, stands
# in for them (second form). Read by scripts/train.sh, which passes these flags to fairseq-train as they stand; DATA and
# SAVE are set there.

source "$(dirname "${BASH_SOURCE[0]}")/tiny_espeak.sh"  # COMMON, INVERSE_SQRT, PROCESSES, STAGE_asr, STAGE_ctc, STAGE_nmla

STAGES=(asr ctc nmla units speech)
TEXT=${TEXT:-$SAVE/nmla/checkpoint_best.pt}

# What the unit decoder has of its own. Rotary positions: after 350 updates the loss was where learned positions with
# sinusoids had it after 450, and it fell faster. Four slots a text slot, 50 a second: this voice has 18 units a second.
UNITS=(
    --arch nast_s2s_tiny --unit-layers 4 --unit-rotary --unit-upsample 4 --dropout 0 --best-checkpoint-metric unit_bleu
    # bfloat16 saves time on a CPU that has it (avx512_bf16); BF16= in the environment leaves it out.
    ${BF16---autocast-bf16}
)

# Stage 1, units with CTC: the unit decoder alone, on top of a text decoder that stays as it is.
STAGE_units=(
    "${UNITS[@]}" --start-from "$TEXT" --train-only units --asr-weight 0 --text-weight 0 --text-glancing 0
    --max-tokens 7000 --required-batch-size-multiple 1
    "${INVERSE_SQRT[@]}" --lr 2e-3 --warmup-updates 200 --max-update 5000
    --unit-loss ctc --unit-glancing 0.3:0.1@5000
)

# Stage 2, text and units with NMLA (bigrams), the whole model; the learning rate ends at 0.
STAGE_speech=(
    "${UNITS[@]}" --start-from "$SAVE/units/checkpoint_last.pt"
    --max-tokens 7000 --required-batch-size-multiple 1 --save-interval-updates 250 --validate-interval-updates 250
    --lr-scheduler polynomial_decay --total-num-update 2000 --lr 8e-4 --warmup-updates 50 --max-update 2000
    --text-loss nmla --unit-loss nmla --nmla-order 2 --nmla-normalization batch
    --text-glancing 0.3 --unit-glancing 0.1
)
