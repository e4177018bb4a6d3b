# shellcheck shell=bash disable=SC2034,SC2153
# The published recipe at paper size: CVSS-C French-English, speech to units and text (Ma et al., 2024, section 4).
#
#   bash scripts/train.sh cvss_fr_en --data DATA --save SAVE
#
# DATA is made by `nast-s2x prepare` from a manifest with the columns src_text, tgt_text and tgt_audio, the last one
# reduced mHuBERT units (layer 11, 1000 clusters): --vocab-size 10000 --num-units 1000. Written for GPUs; for several,
# divide --update-freq by their number so that an update still sees 320k feature frames. Speech to text alone:
# --arch nast_s2t. Best results come from averaging the best five checkpoints of the last stage (`nast-s2x average`).

STAGES=(asr ctc nmla)

COMMON=(
    --task nast_s2x --criterion nast_ctc_nmla
    # 6 + 6 + 6 layers, width 512, 8 heads, feed-forward 2048: 78.8 million parameters with 10k pieces.
    --arch nast_s2s
    # The published systems were trained for one chunk size each; this list gives one model for all of them.
    # For a published system: --chunk-ms 320 (or 640, 1280, 2560, offline). Look-ahead is as long as the chunk.
    --chunk-ms 320,640,1280,2560,offline
    # A text slot covers 2 encoder frames (80 ms) and has 6 unit slots; the paper finds 8 somewhat better.
    --pooling 2 --text-upsample 1 --unit-upsample 6
    # Longest source: sizes the position tables.
    --max-source-seconds 60
    --attention-dropout 0.1 --activation-dropout 0.1
    # SpecAugment of config.yaml: one frequency mask of up to 27 bins, one time mask of up to 100 frames.
    --label-smoothing 0.01
    --asr-weight 1 --text-weight 1 --unit-weight 1
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 10.0
    --lr-scheduler inverse_sqrt --warmup-init-lr 1e-7
    --seed 1 --num-workers 4 --fp16
    --save-interval-updates 2000 --validate-interval-updates 2000 --keep-interval-updates 1 --no-epoch-checkpoints --keep-best-checkpoints 5
    --maximize-best-checkpoint-metric --valid-subset dev
    --validate-interval 1000000 --save-interval 1000000
    --no-progress-bar --log-format simple --log-interval 100
)

# Stage 0: pre-training of the encoder by speech recognition (the text decoder learns the transcript; no units).
STAGE_asr=(
    --arch nast_s2t --target-text source
    --max-tokens 40000 --update-freq 8
    --dropout 0.3 --lr 1e-3 --warmup-updates 10000 --max-update 150000
    --text-loss ctc --text-glancing 0.5:0.3@50k
    --best-checkpoint-metric bleu
)

# Stage 1: CTC on text and units.
STAGE_ctc=(
    --load-pretrained-encoder-from "$SAVE/asr/checkpoint_best.pt"
    --max-tokens 20000 --update-freq 16
    --dropout 0.3 --lr 1e-3 --warmup-updates 10000 --max-update 50000
    --text-loss ctc --unit-loss ctc --text-glancing 0.5:0.3@50k --unit-glancing 0.3:0.1@50k
    --best-checkpoint-metric unit_bleu
)

# Stage 2: NMLA (bigrams) on text and units; batches as large as memory allows (published: 6400 frames, 12 batches).
STAGE_nmla=(
    --finetune-from-model "$SAVE/ctc/checkpoint_best.pt"
    --max-tokens 6400 --update-freq 12
    --dropout 0.1 --lr 3e-4 --warmup-updates 4000 --max-update 30000
    --text-loss nmla --unit-loss nmla --nmla-order 2 --nmla-normalization batch
    --text-glancing 0.3 --unit-glancing 0.1
    --best-checkpoint-metric unit_bleu
)
