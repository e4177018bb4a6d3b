# shellcheck shell=bash disable=SC2034,SC2153
# Recipe of the autoregressive baseline: fairseq's own speech-to-unit transformer (Lee et al., 2022,
# https://arxiv.org/abs/2107.05604) on the example's features and units, on two CPU cores in about a quarter of an hour.
#
#   python scripts/s2ut_data.py DATA --output S2UT_DATA      # DATA as for configs/tiny_espeak_s2s.sh
#   bash scripts/train.sh tiny_espeak_s2ut --data S2UT_DATA --save SAVE
#
# "Same width and depth" as nast_s2s_tiny: width 128, feed-forward 512, 4 heads, 4 encoder layers, and as many decoder
# layers as its unit decoder has, 4. (Its text decoder, 3 more layers, has no counterpart: the choice that makes the
# baseline faster.) In training alone a CTC loss of the transcript sits on the encoder, as the recognition loss does there.
# fairseq's CTC needs a package of its own (editdistance) to validate: there is no validation, the last checkpoints are averaged.

STAGES=(s2ut)
PROCESSES=2

COMMON=(
    --task speech_to_speech --config-yaml config.yaml --multitask-config-yaml multitask.yaml
    --target-is-code --target-code-size "$(sed -n 's/^num_units: //p' "$DATA/config.yaml")" --vocoder code_hifigan
    --max-source-positions 3000 --max-target-positions 1024
    --criterion speech_to_unit --label-smoothing 0.1
    --arch s2ut_transformer --share-decoder-input-output-embed
    --encoder-embed-dim 128 --encoder-ffn-embed-dim 512 --encoder-attention-heads 4 --encoder-layers 4
    --conv-channels 256 --conv-kernel-sizes 5,5
    --decoder-embed-dim 128 --decoder-ffn-embed-dim 512 --decoder-attention-heads 4 --decoder-layers 4
    --dropout 0.05 --attention-dropout 0 --activation-dropout 0
    # Feature frames in the batch of a process: 50 s of speech.
    --max-tokens 5000 --required-batch-size-multiple 1
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 5.0
    --seed 1 --cpu --num-workers 0
    # fairseq sends what rank 0 has loaded to the others as a pickle, which torch refuses to read: each reads the file itself.
    --load-checkpoint-on-all-dp-ranks
    --train-subset train --disable-validation
    --save-interval-updates 250 --keep-interval-updates 5 --no-epoch-checkpoints --save-interval 1000000
    --no-progress-bar --log-format simple --log-interval 50
)

# The learning rate ends at 0.
STAGE_s2ut=(
    --lr-scheduler polynomial_decay --lr 2e-3 --warmup-updates 300 --total-num-update 2000 --max-update 2000
)
