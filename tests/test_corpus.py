"""Configuration, dictionary, text, manifests, features and SpecAugment of a data folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from nast_s2x.corpus.data_folder import DataFolder, specaugment_settings
from nast_s2x.corpus.utterance import parse_units
from nast_s2x.corpus.vocabulary import train_vocabulary
from nast_s2x.errors import NastError
from nast_s2x.frontend.specaugment import SpecAugment
from nast_s2x.labels import BOS, EOS, PAD, UNK, TextLabels

PUBLISHED = Path(__file__).parent / "fixtures" / "parity" / "published_checkpoint"


# ---- config.yaml


def test_published_configuration_loads() -> None:
    config = DataFolder.load(PUBLISHED)
    assert (config.vocab_path, config.spm_path) == (PUBLISHED / "spm.txt", PUBLISHED / "spm.model")
    assert config.cmvn_path == PUBLISHED / "gcmvn.npz"
    assert config.num_units is None and config.specaugment is None
    assert config.transforms(is_train=True) == ["global_cmvn"]
    assert DataFolder.load(PUBLISHED / "config.yaml") == config


def write_config(folder: Path, text: str) -> Path:
    for name in ("d.txt", "s.model", "g.npz"):
        (folder / name).touch()
    base = "vocab_filename: d.txt\nbpe_tokenizer: {bpe: sentencepiece, sentencepiece_model: s.model}\n"
    (folder / "config.yaml").write_text(base + text)
    return folder


def test_configuration_fields(tmp_path: Path) -> None:
    config = DataFolder.load(
        write_config(
            tmp_path,
            "global_cmvn: {stats_npz_path: /somewhere/else/g.npz}\n"
            "specaugment: {freq_mask_N: 2, freq_mask_F: 27, time_mask_N: 1, time_mask_T: 100, time_mask_p: 0.5}\n"
            "transforms: {'*': [global_cmvn], _train: [global_cmvn, specaugment], odd: []}\n"
            "num_units: 1000\nsource_lang: fr\ntarget_lang: en\naudio_root: sound\n",
        )
    )
    # A path of another machine stands for the file of that name in the folder.
    assert config.cmvn_path == tmp_path / "g.npz"
    assert config.specaugment == SpecAugment(2, 27, 1, 100, 0.5)
    assert specaugment_settings(config.specaugment) == {
        "time_warp_W": 0, "freq_mask_N": 2, "freq_mask_F": 27, "time_mask_N": 1, "time_mask_T": 100, "time_mask_p": 0.5
    }  # fmt: skip
    assert config.transforms(True) == ["global_cmvn", "specaugment"]
    assert config.transforms(False) == ["global_cmvn"]
    assert config.transforms(False, "odd") == []
    assert (config.num_units, config.source_lang, config.target_lang) == (1000, "fr", "en")
    assert config.audio_root == tmp_path / "sound"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("global_cmvn: {stats_npz_path: none.npz}", r"global_cmvn.stats_npz_path: no such file .*none\.npz"),
        ("transforms: {'*': [global_cmvn]}", "stats_npz_path is not set"),
        ("transforms: {'*': [delta_deltas]}", "'delta_deltas' is not one of"),
        ("sample_rate: 8000", "`sample_rate` must be 16000, but is 8000"),
        ("input_feat_per_channel: 40", "must be 80 features, not 40"),
        ("num_units: 0", "`num_units` must be a whole number of at least 1, but is 0"),
        ("specaugment: {time_warp_W: 5}", "time warping"),
        ("specaugment: [1]", "`specaugment` must be a table"),
        ("vocab_filename: [", "not a YAML file"),
        # Values of other types.
        ("input_feat_per_channel: []", r"`input_feat_per_channel` must be a whole number .*, but is \[\]"),
        ("input_channels: true", "`input_channels` must be a whole number .*, but is True"),
        ("sample_rate: null", "`sample_rate` must be a whole number .*, but is None"),
        ("sample_rate: .inf", "`sample_rate` must be a whole number .*, but is inf"),
        ("num_units: []", "`num_units` must be a whole number"),
        ("num_units: 1000000000000", "`num_units` must be at most 1000000, but is"),
        ("transforms: {'*': 5}", r"`transforms\.\*` must be a list, but is 5"),
        ("transforms: {'*': [[1]]}", r"`transforms\.\*\[0\]` must be text, but is \[1\]"),
        ("specaugment: {freq_mask_N: []}", "`specaugment.freq_mask_N` must be a whole number"),
        ("specaugment: {time_mask_T: -1}", "`specaugment.time_mask_T` must be a whole number of at least 0, but is -1"),
        (
            "specaugment: {time_mask_p: x}",
            "`specaugment.time_mask_p` must be a finite number of at least 0 .*, but is 'x'",
        ),
        (f"specaugment: {{time_mask_p: {10**400}}}", "`specaugment.time_mask_p` must be a finite number"),
        ("specaugment: {time_mask_p: .nan}", "`specaugment.time_mask_p` must be a finite number .*, but is nan"),
        (
            "specaugment: {time_mask_p: 2}",
            "`specaugment.time_mask_p` must be a finite number of at least 0 and at most 1, but is 2",
        ),
        ("specaugment: {mask_value: []}", "`specaugment.mask_value` must be a finite number"),
        ("specaugment: {mask_value: 1}", "mask_value must be 0"),
        ("source_lang: no", "`source_lang` must be text, but is False: put it in quotes"),
        ("unit_hash: 1234", "`unit_hash` must be text"),
        ("audio_root: {}", "`audio_root` must be text"),
        ("global_cmvn: {stats_npz_path: 7}", "`global_cmvn.stats_npz_path` must be text, but is 7"),
        ("bpe_tokenizer: {sentencepiece_model: [x]}", "`bpe_tokenizer.sentencepiece_model` must be text"),
        ("bpe_tokenizer: {bpe: []}", r"`bpe_tokenizer.bpe` must be text, but is \[\]"),
        ("num_units: " + "[" * 5000, "nested too deeply"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nnum_units: [*b,*b,*b,*b]", "whole number"),
        ("- 1", "not a YAML file|must hold a table"),
    ],
)
def test_configuration_errors_name_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((NastError, FileNotFoundError), match=message) as error:
        DataFolder.load(write_config(tmp_path, text))
    assert "config.yaml" in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such data configuration"):
        DataFolder.load(tmp_path / "nowhere")


# ---- dictionary and text


def test_dictionary_labels(tmp_path: Path) -> None:
    # The second piece holds a line separator, which is not the end of a line.
    (tmp_path / "d.txt").write_text("▁a 1\nb\u2028c 7\n", encoding="utf-8")
    dictionary = TextLabels.load(tmp_path / "d.txt")
    assert dictionary.size == 7 and (BOS, PAD, EOS, UNK, dictionary.blank) == (0, 1, 2, 3, 6)
    assert [dictionary.label(piece) for piece in ("▁a", "b\u2028c", "zzz", "<blank>")] == [4, 5, 3, 6]
    assert dictionary.piece(4) == "▁a"
    dictionary.save(tmp_path / "e.txt")
    again = TextLabels.load(tmp_path / "e.txt")
    assert [again.piece(label) for label in range(7)] == [dictionary.piece(label) for label in range(7)]
    with pytest.raises(IndexError, match="label -1 is outside"):
        dictionary.piece(-1)


@pytest.mark.parametrize(
    ("text", "message"), [("a 1\na 2\n", "'a' appears twice"), ("a 1\nb\n", ":2: .*'b'"), ("<s> 1\n", "reserved")]
)
def test_dictionary_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.txt").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        TextLabels.load(tmp_path / "d.txt")
    assert "d.txt" in str(error.value)


def test_a_dictionary_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe 1\n")
    with pytest.raises(NastError, match=r"d\.txt is not a dictionary: it must be UTF-8 text"):
        TextLabels.load(tmp_path / "d.txt")


def test_published_tokenizer() -> None:
    config = DataFolder.load(PUBLISHED)
    tokenizer = TextLabels.load(config.vocab_path, config.spm_path)
    tokens = tokenizer.encode("the big blue sleep")
    assert tokens == [tokenizer.label(piece) for piece in ("▁the", "▁big", "▁blue", "▁sleep")]
    assert tokenizer.decode([0, *tokens, 1, tokenizer.blank, 2]) == "the big blue sleep"
    assert tokenizer.decode([tokens[0], 3, tokens[1]]) == "the\u2047 big"
    assert [tokenizer.starts_word(token) for token in (tokens[0], 3)] == [True, False]
    assert tokenizer.decode([]) == ""


def test_tokenizer_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.model"):
        TextLabels([], tmp_path / "none.model")
    (tmp_path / "bad.model").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"bad\.model: not a SentencePiece model"):
        TextLabels([], tmp_path / "bad.model")


def test_vocabulary_of_a_small_corpus(tmp_path: Path) -> None:
    texts = ["le chat noir dort", "the black cat sleeps", "« l'été »"] * 3
    vocabulary = train_vocabulary(texts, 1000)
    assert "not the 1000 asked for" in vocabulary.note
    assert vocabulary.model == train_vocabulary(texts, 1000).model
    (tmp_path / "s.model").write_bytes(vocabulary.model)
    tokenizer = TextLabels(vocabulary.dictionary._pieces[4:-1], tmp_path / "s.model")
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        # Ids of the model are our labels.
        assert tokenizer.encode(text) == tokenizer._processor.EncodeAsIds(text)


def test_text_as_it_is_written(tmp_path: Path) -> None:
    """NFKC would replace the punctuation of full width; spaces of all kinds are one space either way."""
    texts = ["你好，世界！（真的？）", "il dit\u00a0: oui", "“走吧”——他说", "ﾃｽﾄ１２"] * 3
    for as_written, kept in ((True, "你好，世界！（真的？）"), (False, "你好,世界!(真的?)")):
        vocabulary = train_vocabulary(texts, 200, as_written=as_written)
        (tmp_path / "s.model").write_bytes(vocabulary.model)
        labels = TextLabels(vocabulary.dictionary._pieces[4:-1], tmp_path / "s.model")
        assert labels.decode(labels.encode(texts[0])) == kept
        assert labels.decode(labels.encode(texts[1])) == "il dit : oui"
        assert not any("\u00a0" in labels.piece(label) for label in range(labels.size))


def test_words_in_one_piece_are_counted() -> None:
    texts = ["le chat noir dort", "the black cat sleeps"] * 3
    vocabulary = train_vocabulary(texts, 60)
    processor = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.model)
    words = " ".join(texts).split()
    whole = [word for word in words if len(processor.EncodeAsIds(word)) == 1]
    assert 0 < len(whole) < len(words)
    assert vocabulary.whole_words == len(whole) / len(words)


def test_vocabulary_errors() -> None:
    with pytest.raises(ValueError, match="of 6 pieces is too small: .* take 1[0-9]"):
        train_vocabulary(["le chat noir dort"], 6)
    with pytest.raises(ValueError, match="at least one sentence"):
        train_vocabulary([" "], 100)
    with pytest.raises(ValueError, match="character_coverage must be in"):
        train_vocabulary(["a b"], 100, 0.1)


# ---- manifests


def test_unit_strings() -> None:
    assert parse_units(" 3 0  12 ") == (3, 0, 12)
    for text, message in (("", "empty"), ("1 -2", "'-2'"), ("1 two", "'two'"), ("1 2.0", "'2.0'"), ("²", "'²'")):
        with pytest.raises(ValueError, match=message):
            parse_units(text)


# ---- SpecAugment


def test_specaugment_masks_within_its_limits() -> None:
    features, augment = np.ones((60, 80), np.float32), SpecAugment(1, 27, 1, 100, 0.5)
    widths, lengths = set(), set()
    for seed in range(300):
        masked = augment(features, np.random.default_rng(seed))
        zero = masked == 0
        bins, frames = zero.all(axis=0), zero.all(axis=1)
        assert np.array_equal(zero, bins[None, :] | frames[:, None])
        for line, seen in ((bins, widths), (frames, lengths)):
            where = np.flatnonzero(line)
            assert len(where) == 0 or where[-1] - where[0] + 1 == len(where)
            seen.add(len(where))
    assert features.all()
    assert (min(widths), max(widths)) == (0, 27) and (min(lengths), max(lengths)) == (0, 30)


def test_specaugment_repeats_and_refuses() -> None:
    features = np.ones((50, 80), np.float32)
    first, second = (SpecAugment()(features, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert SpecAugment()(np.zeros((0, 80), np.float32), np.random.default_rng(0)).shape == (0, 80)
    with pytest.raises(ValueError, match="time_p must be in"):
        SpecAugment(time_p=2.0)
    with pytest.raises(ValueError, match="freq_width must not be negative: -1"):
        SpecAugment(freq_width=-1)
