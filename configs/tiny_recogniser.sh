# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the example's English recogniser, which measures how intelligible speech is: stage 0 alone, offline.
#
#   bash scripts/train.sh tiny_recogniser --data DATA --save SAVE
#
# DATA is made by `nast-s2x prepare` (--source-lang en --target-lang en --vocab-size 500) from the corpus of
# examples/espeak_fr_en/recogniser.py. Read by scripts/train.sh, which passes these flags to fairseq-train as they
# stand; DATA and SAVE are set there.

STAGES=(asr)
PROCESSES=1

COMMON=(
    --task nast_s2x --criterion nast_ctc_nmla
    # 2 million parameters: width 128, 4 encoder and 3 decoder layers, feed-forward 512.
    --arch nast_s2t_tiny
    # A recogniser of finished recordings: the whole utterance is one chunk.
    --chunk-ms offline
    --max-source-seconds 30
    --dropout 0.05 --attention-dropout 0 --activation-dropout 0
    --specaugment 1x10,1x20
    --label-smoothing 0.01
    # Feature frames in a batch, padding included: 50 s of speech, some 15 sentences.
    --max-tokens 5000
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 5.0
    --lr-scheduler inverse_sqrt --warmup-init-lr 1e-7
    --seed 1 --cpu --num-workers 0
    --save-interval-updates 500 --validate-interval-updates 500 --keep-interval-updates 1 --no-epoch-checkpoints --keep-best-checkpoints 5
    --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
    --valid-subset dev
    --validate-interval 1000000 --save-interval 1000000
    --no-progress-bar --log-format simple --log-interval 50
)

# Speech recognition: the text decoder learns the transcript. For some hundred updates CTC predicts blanks alone.
STAGE_asr=(
    --target-text source
    --lr 2e-3 --warmup-updates 400 --max-update 4500
    --text-loss ctc --text-glancing 0.5:0.3@1000
)
