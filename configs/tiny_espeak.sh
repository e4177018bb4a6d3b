# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the example: a small model for synthetic French-English speech, on two CPU cores in less than three hours.
#
#   bash scripts/train.sh tiny_espeak --data DATA --save SAVE
#
# DATA is made by `nast-s2x prepare` from the corpus of examples/espeak_fr_en. Read by scripts/train.sh, which passes
# these flags to fairseq-train as they stand; DATA and SAVE are set there.

STAGES=(asr ctc nmla)
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

# Stage 1, translation with CTC, from stage 0: of the paper's recipe only the encoder is kept
# (--load-pretrained-encoder-from); here the decoder is too, which knows already how to read the encoder.
STAGE_ctc=(
    --finetune-from-model "$SAVE/asr/checkpoint_last.pt"
    "${INVERSE_SQRT[@]}" --lr 2e-3 --warmup-updates 400 --max-update 3500
    --text-loss ctc --text-glancing 0.5:0.3@4000
)

# Stage 2, translation with NMLA (bigrams), from the whole model of stage 1.
STAGE_nmla=(
    --finetune-from-model "$SAVE/ctc/checkpoint_best.pt"
    "${INVERSE_SQRT[@]}" --lr 5e-4 --warmup-updates 100 --max-update 1200
    --text-loss nmla --nmla-order 2 --nmla-normalization batch --text-glancing 0.3
)
