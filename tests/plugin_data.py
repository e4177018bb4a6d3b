"""A small synthetic data folder for tests of the fairseq plugin: each word is a fixed pattern of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sentencepiece
import yaml

WORDS = {
    "un": "a", "deux": "two", "chat": "cat", "chien": "dog", "noir": "black", "blanc": "white", "mange": "eats",
    "dort": "sleeps", "ici": "here", "demain": "tomorrow", "petit": "small", "grand": "big", "rouge": "red",
    "maison": "house", "mer": "sea", "vent": "wind",
}  # fmt: skip
UNITS = 12
FRAMES_PER_WORD = 40


def make_data_folder(folder: Path, train: int = 24, valid: int = 5, seed: int = 0, units: bool = True) -> Path:
    """Write features, vocabulary, CMVN, manifests and config.yaml; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    patterns = {word: rng.standard_normal((FRAMES_PER_WORD, 80)) for word in WORDS}
    for split, count in (("train", train), ("valid", valid), ("test", valid)):
        rows = ["id\taudio\tn_frames\tsrc_text\ttgt_text" + ("\ttgt_audio\ttgt_n_frames" if units else "")]
        for index in range(count):
            words = [str(word) for word in rng.choice(list(WORDS), size=rng.integers(3, 7))]
            features = np.concatenate([patterns[word] for word in words]).astype(np.float32)
            features += 0.05 * rng.standard_normal(features.shape).astype(np.float32)
            np.save(folder / f"{split}-{index}.npy", features)
            cells = [f"{split}-{index}", f"{split}-{index}.npy", str(len(features))]
            cells += [" ".join(words), " ".join(WORDS[word] for word in words)]
            if units:
                codes = [str((3 * list(WORDS).index(word) + k) % UNITS) for word in words for k in range(3)]
                cells += [" ".join(codes), str(len(codes))]
            rows.append("\t".join(cells))
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _write_vocabulary(folder)
    np.savez(folder / "gcmvn.npz", mean=np.zeros(80, np.float32), std=np.ones(80, np.float32))
    _write_config(folder, units)
    return folder


def _write_vocabulary(folder: Path) -> None:
    text = folder / "text.txt"
    text.write_text("\n".join([*WORDS, *WORDS.values()]) * 4, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spm"), vocab_size=120, model_type="unigram", hard_vocab_limit=False,
        bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    pieces = [model.id_to_piece(i) for i in range(4, model.get_piece_size())]
    (folder / "spm.txt").write_text("".join(f"{piece} 1\n" for piece in pieces), encoding="utf-8")


def _write_config(folder: Path, units: bool) -> None:
    config = {
        "vocab_filename": "spm.txt",
        "bpe_tokenizer": {"bpe": "sentencepiece", "sentencepiece_model": "spm.model"},
        "input_feat_per_channel": 80,
        "input_channels": 1,
        "global_cmvn": {"stats_npz_path": "gcmvn.npz"},
        "specaugment": {"freq_mask_N": 1, "freq_mask_F": 8, "time_mask_N": 1, "time_mask_T": 10, "time_mask_p": 0.1},
        "transforms": {"*": ["global_cmvn"], "_train": ["global_cmvn", "specaugment"]},
        **({"num_units": UNITS} if units else {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
