"""Configuration, dictionary, text, manifests, features and SpecAugment of a data folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nast_s2x.corpus.audio_ref import load_features
from nast_s2x.corpus.data_folder import DataFolder, specaugment_settings
from nast_s2x.corpus.manifest import Example, parse_units, read_split, read_table, write_split
from nast_s2x.corpus.vocabulary import train_vocabulary
from nast_s2x.errors import NastError
from nast_s2x.frontend.fbank import fbank
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
        ("sample_rate: 8000", "sample_rate must be 16000, not 8000"),
        ("input_feat_per_channel: 40", "must be 80 features, not 40"),
        ("num_units: 0", "num_units must be a whole number in 1..1000000, not 0"),
        ("specaugment: {time_warp_W: 5}", "time warping"),
        ("specaugment: [1]", "specaugment must be a table"),
        ("vocab_filename: [", "not a YAML file"),
        # Values of other types.
        ("input_feat_per_channel: []", r"input_feat_per_channel must be a whole number in .*, not \[\]"),
        ("input_channels: true", "input_channels must be a whole number in .*, not True"),
        ("sample_rate: null", "sample_rate must be a whole number in .*, not None"),
        ("sample_rate: .inf", "sample_rate must be a whole number in .*, not inf"),
        ("num_units: []", "num_units must be a whole number"),
        ("num_units: 1000000000000", "num_units must be a whole number"),
        ("transforms: {'*': 5}", r"transforms: '\*' must be a list of transforms, not 5"),
        ("transforms: {'*': [[1]]}", r"transforms: \[1\] is not one of"),
        ("specaugment: {freq_mask_N: []}", "specaugment.freq_mask_N must be a whole number"),
        ("specaugment: {time_mask_T: -1}", "specaugment.time_mask_T must be a whole number in 0..1000000, not -1"),
        ("specaugment: {time_mask_p: x}", "specaugment.time_mask_p must be a number, not 'x'"),
        ("specaugment: {time_mask_p: 2}", "time_p must be in 0..1"),
        ("specaugment: {mask_value: []}", "mask_value must be 0"),
        ("source_lang: no", "source_lang must be text, not False: put it in quotes"),
        ("unit_hash: 1234", "unit_hash must be text"),
        ("audio_root: {}", "audio_root must be text"),
        ("global_cmvn: {stats_npz_path: 7}", "stats_npz_path must be a path, not 7"),
        ("bpe_tokenizer: {sentencepiece_model: [x]}", "bpe_tokenizer.sentencepiece_model must be text"),
        ("bpe_tokenizer: {bpe: []}", r"bpe must be sentencepiece, not \[\]"),
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


def test_vocabulary_errors() -> None:
    with pytest.raises(ValueError, match="of 6 pieces is too small: .* take 1[0-9]"):
        train_vocabulary(["le chat noir dort"], 6)
    with pytest.raises(ValueError, match="at least one sentence"):
        train_vocabulary([" "], 100)
    with pytest.raises(ValueError, match="character_coverage must be in"):
        train_vocabulary(["a b"], 100, 0.1)


# ---- manifests


def test_split_round_trip(tmp_path: Path) -> None:
    rows = [
        Example("a/1", "x.zip:36:100", 12, 'dit "oui', "said 'yes\\", (3, 0, 999), 3),
        Example("b", "b.wav", 7, "", "« ça »\u2028", None, 0),
    ]
    write_split(tmp_path / "train.tsv", rows)
    assert read_split(tmp_path / "train.tsv", num_units=1000) == rows
    write_split(tmp_path / "text.tsv", rows[1:])
    assert (tmp_path / "text.tsv").read_text("utf-8").startswith("id\taudio\tn_frames\tsrc_text\ttgt_text\n")
    with pytest.raises(ValueError, match="'c'.*tab"):
        write_split(tmp_path / "bad.tsv", [Example("c", "c.wav", 1, "a\tb")])


def test_split_of_another_origin(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes(
        '\ufeffid\tsrc_audio\tsrc_n_frames\tspeaker\ttgt_text\r\nu1\tu1.npy\t5\tspk\ta " b\r\n\r\n'.encode()
    )
    assert read_split(tmp_path / "t.tsv") == [Example("u1", "u1.npy", 5, "", 'a " b')]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\taudio\n", r"t\.tsv:1: no column n_frames"),
        ("id\tid\taudio\n", r"t\.tsv:1: a column appears twice"),
        ("id\taudio\tn_frames\nu\tx.npy\n", r"t\.tsv:2: has 2 columns, the header 3"),
        ("id\taudio\tn_frames\nu\tx.npy\t-3\n", r"t\.tsv:2: n_frames must be a whole number, not '-3'"),
        ("id\taudio\tn_frames\nu\tx\t3\nv\tx\t3\nu\tx\t3\n", r"t\.tsv:4: id 'u' appears twice"),
        ("id\taudio\tn_frames\ttgt_audio\nu\tx\t3\t1 5 2\n", r"t\.tsv:2: unit 5 is outside 0..4"),
    ],
)
def test_split_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path / "t.tsv", num_units=5)


def test_manifest_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes(b"id\xff\n")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        list(read_table(tmp_path / "t.tsv"))
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        list(read_table(tmp_path / "none.tsv"))


def test_unit_strings() -> None:
    assert parse_units(" 3 0  12 ") == (3, 0, 12)
    for text, message in (("", "empty"), ("1 -2", "'-2'"), ("1 two", "'two'"), ("1 2.0", "'2.0'"), ("²", "'²'")):
        with pytest.raises(ValueError, match=message):
            parse_units(text)


# ---- features


def test_features_from_every_place(tmp_path: Path) -> None:
    waveform = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", waveform, 16000, subtype="FLOAT")
    expected = fbank(waveform).numpy()
    np.save(tmp_path / "a.npy", expected)
    np.save(tmp_path / "half.npy", expected.astype(np.float16))
    places = ["a.wav", "a.npy", str(tmp_path / "a.wav")]
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name in ("a.npy", "a.wav"):
            archive.write(tmp_path / name, name)
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        for info in archive.infolist():
            places.append(f"p.zip:{info.header_offset + 30 + len(info.filename)}:{info.file_size}")
    for place in places:
        np.testing.assert_array_equal(load_features(place, tmp_path), expected)
    half = load_features("half.npy", tmp_path)
    assert half.dtype == np.float32 and np.abs(half - expected).max() < 0.01
    np.testing.assert_array_equal(load_features("a.wav:160:4000", tmp_path), fbank(waveform[160:4160]).numpy())


def test_feature_errors_name_the_place(tmp_path: Path) -> None:
    np.save(tmp_path / "narrow.npy", np.zeros((5, 40), np.float32))
    (tmp_path / "bad.npy").write_bytes(b"nonsense")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "x.zip").write_bytes(bytes(100))
    for place, message in (
        ("narrow.npy", r"narrow\.npy: features must have shape \(frames, 80\), not \(5, 40\)"),
        ("bad.npy", r"bad\.npy: not a numpy array"),
        ("object.npy", r"object\.npy: not a numpy array"),
        ("none.npy", r"none\.npy: no such feature file"),
        ("none.zip:1:2", r"none\.zip: no such feature archive"),
        ("x.zip", "needs a byte offset"),
        ("x.zip:90:20", r"x\.zip:90:20: the archive ends before byte 110"),
        ("x.zip:10:20", r"x\.zip:10:20: cannot be read as audio"),
        ("none.wav", r"none\.wav: no such audio file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_features(place, tmp_path)


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
