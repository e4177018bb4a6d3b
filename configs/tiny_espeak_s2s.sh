# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the example's voice: small speech-to-speech model (French to English units), on two CPU cores.
#
#   bash scripts/train.sh tiny_espeak_s2s --data DATA --save SAVE
#
# DATA is made by `nast-s2x prepare` from the corpus of examples/espeak_fr_en with units (`nast-s2x units extract`).
# Stages asr and text are those of configs/tiny_espeak.sh (asr and ctc there): folders that it has trained on the same
# texts can be taken over under these names. Read by scripts/train.sh, which passes these flags to fairseq-train as
# they stand; DATA and SAVE are set there.

STAGES=(asr text units ctc positions nmla)
# Two processes of one thread each: operations of this size gain little from a second thread.
PROCESSES=2

COMMON=(
    --task nast_s2x --criterion nast_ctc_nmla
    # 2 million parameters: width 128, 4 encoder and 3 decoder layers, feed-forward 512.
    --arch nast_s2t_tiny
    # One model for all these chunk sizes: each update draws one. Look-ahead is as long as the chunk.
    --chunk-ms 320,640,1280,offline
    # Position tables for sources of this length; longer training samples are left out.
    --max-source-seconds 30
    # Dropout after attention and feed-forward only: the other two kinds cost a third of the time on a CPU.
    --dropout 0.05 --attention-dropout 0 --activation-dropout 0
    # Milder masks than the published ones (1x27,1x100): sentences are short and the model is small.
    --specaugment 1x10,1x20
    --label-smoothing 0.01
    # Feature frames in the batch of a process, padding included: 50 s of speech.
    --max-tokens 5000
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 5.0
    --seed 1 --cpu --num-workers 0
    # Keep the last checkpoint, to resume, and the five with the best BLEU (mean of the smallest and the largest chunk).
    --save-interval-updates 500 --validate-interval-updates 500 --keep-interval-updates 1 --no-epoch-checkpoints --keep-best-checkpoints 5
    --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
    --valid-subset dev
    --validate-interval 1000000 --save-interval 1000000
    --no-progress-bar --log-format simple --log-interval 50
)

INVERSE_SQRT=(--lr-scheduler inverse_sqrt --warmup-init-lr 1e-7)

# Stage 0, speech recognition: the text decoder learns the transcript.
STAGE_asr=(
    --target-text source
    "${INVERSE_SQRT[@]}" --lr 2e-3 --warmup-updates 400 --max-update 1000
    --text-loss ctc --text-glancing 0.5:0.3@1000
)

# Translation to text with CTC, from stage 0.
STAGE_text=(
    --finetune-from-model "$SAVE/asr/checkpoint_last.pt"
    "${INVERSE_SQRT[@]}" --lr 2e-3 --warmup-updates 400 --max-update 3500
    --text-loss ctc --text-glancing 0.5:0.3@4000
)

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
