"""Languages without spaces: text leaves a stream with its chunk, and joined it is the text of the offline pass."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
import sentencepiece
import torch
from random_system import CHINESE, SENTENCES, make_bundle, make_signal, make_vocabulary

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.inference.detokenizer import (
    StreamingDetokenizer,
    StreamingPieces,
    WholeWords,
    detokenize,
    join_sentences,
    text_of_pieces,
)
from nast_s2x.inference.emission import Emission
from nast_s2x.inference.offline import translate_samples
from nast_s2x.inference.system import System
from nast_s2x.labels import TextLabels
from nast_s2x.writing import is_open, split_runs, width

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis (extra dev)")
from hypothesis import strategies as st  # noqa: E402

many = hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
few = hypothesis.settings(max_examples=20, deadline=None, derandomize=True, database=None)

MIXED = [
    *CHINESE,
    *SENTENCES[:2],
    "これはABCのテストです。",
    "カタカナと ひらがな 3.14 円",
    "ฉันกินข้าวที่บ้านแล้วก็ไปทำงาน",
    "나는 학교에 갑니다",
    "他说“I don't know”，café 在哪儿？",
]
RARE = "葛飾区の鷗外龘𠮷 naïve"
"""Characters that no vocabulary here has a piece for."""
LATIN = re.compile(r"[0-9A-Za-zÀ-ɏ가-힣']")


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextLabels]:
    """Mixed scripts: with SentencePiece's usual normalisation; as written, with bytes; spaces at the ends of pieces."""
    folder = tmp_path_factory.mktemp("vocabularies")
    options = {
        "plain": {"size": 200},
        "bytes": {"size": 460, "byte_fallback": True, "normalization_rule_name": "identity"},
        "suffix": {"size": 200, "treat_whitespace_as_suffix": True},
    }
    made = {name: make_vocabulary(folder / name, MIXED, **values) for name, values in options.items()}
    return {name: TextLabels.load(dictionary, spm) for name, (spm, dictionary) in made.items()}


KINDS = st.sampled_from(["plain", "bytes", "suffix"])


@st.composite
def calls(draw: st.DrawFn, labels: TextLabels) -> list[list[int]]:
    """Tokens of sentences and random ones, cut into calls at any place."""
    parts = st.one_of(
        st.sampled_from([*MIXED, RARE]).map(labels.encode),
        st.lists(st.integers(3, labels.blank - 1), max_size=6),
        st.lists(st.sampled_from([labels.label(f"<0x{byte:02X}>") for byte in b"\xe4\xbd\xa0\xc3\xa9A "]), max_size=4),
    )
    tokens = [token for part in draw(st.lists(parts, max_size=4)) for token in part]
    cuts = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=12)))
    return [tokens[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(tokens)])]


def streamed(labels: TextLabels, pieces: list[list[int]]) -> list[str]:
    stream = StreamingDetokenizer(labels)
    return [*(stream.push(tokens) for tokens in pieces), stream.finish()]


def check_seam(before: str, after: str) -> None:
    """Two emissions must not divide a word with spaces around it, nor a letter and its mark."""
    assert not (LATIN.match(before[-1]) and LATIN.match(after[0])), (before, after)
    if not unicodedata.name(before[-1], "").startswith(("CJK", "HIRAGANA", "KATAKANA")):
        assert unicodedata.category(after[0])[0] != "M", (before, after)


@many
@hypothesis.given(kind=KINDS, data=st.data())
def test_any_cut_joins_to_the_text_of_all_tokens(
    vocabularies: dict[str, TextLabels], kind: str, data: st.DataObject
) -> None:
    labels = vocabularies[kind]
    pieces = data.draw(calls(labels))
    tokens = [token for part in pieces for token in part]
    whole = labels.decode(tokens)
    deltas = streamed(labels, pieces)
    assert "".join(deltas) == detokenize(labels, tokens) == whole and whole == " ".join(whole.split())
    written = [delta for delta in deltas if delta]
    for before, after in zip(written, written[1:]):
        check_seam(before, after)
    streaming = StreamingPieces(labels)
    said = [piece for part in pieces for piece in streaming.push(part)] + streaming.finish()
    assert text_of_pieces(said) == (f" {whole}" if whole else "")
    words = WholeWords()
    texts = [*(words.push(delta) for delta in deltas[:-1]), words.push(deltas[-1], final=True)]
    assert " ".join(text for text in texts if text) == whole


@many
@hypothesis.given(kind=KINDS, data=st.data())
def test_segments_join_to_the_text_of_the_offline_pass(
    vocabularies: dict[str, TextLabels], kind: str, data: st.DataObject
) -> None:
    labels = vocabularies[kind]
    segments = data.draw(st.lists(calls(labels), max_size=4))
    stream, pieces, said = StreamingDetokenizer(labels), StreamingPieces(labels), []
    deltas = []
    for segment in segments:
        deltas += [*(stream.push(tokens) for tokens in segment), stream.finish()]
        said += [piece for tokens in segment for piece in pieces.push(tokens)] + pieces.finish()
    whole = join_sentences(detokenize(labels, sum(segment, [])) for segment in segments)
    assert "".join(deltas) == whole and text_of_pieces(said) == (f" {whole}" if whole else "")


@pytest.mark.parametrize("kind", ["plain", "bytes", "suffix"])
def test_sentences_are_decoded_as_sentencepiece_does(vocabularies: dict[str, TextLabels], kind: str) -> None:
    labels = vocabularies[kind]
    processor = sentencepiece.SentencePieceProcessor(model_proto=labels.sentencepiece)
    for sentence in MIXED:
        assert labels.decode(labels.encode(sentence)) == processor.Decode(processor.Encode(sentence)).strip()
    spelled = labels.pieces(labels.encode(RARE))
    assert any(piece.startswith("<0x") for piece in spelled) == (kind == "bytes")
    if kind == "bytes":
        assert labels.decode(labels.encode(RARE)) == RARE


HELD_BACK = [
    ("\u2581我", "我"), ("们", "们"), ("\u2581love", ""), ("GP", ""), ("T", ""), ("-4", ""), ("。", " loveGPT-4。"),
    ("“", "“"), ("好", "好"), ("”", "”"), ("3", ""), (".14", ""), ("元", "3.14元"), (",", ","), ("\u2581ok", ""),
    ("\u2581", " ok"), ("ที่", ""), ("น", " ที่"), ("ี่", ""), ("<0xE4>", ""), ("<0xBD>", ""), ("<0xA0>", "นี่你"),
    ("<0xE4>", ""), ("n", ""), ("\u2581대한", "\ufffdn"), ("민국", ""), ("(", ""), ("𠮷", " 대한민국(𠮷"), (")", ")"),
    ("<0xE4>", ""),
    ("\u2581か", "\ufffd か"), ("\u3099", "\u3099"), ("ｶ", "ｶ"), ("Ｇ", ""),
]  # fmt: skip


def test_what_is_held_back() -> None:
    """A piece at a time: Chinese comes at once, words when they end, Thai to the last letter but one."""
    labels = TextLabels(dict.fromkeys(piece for piece, _ in HELD_BACK))
    stream = StreamingDetokenizer(labels)
    assert [(piece, stream.push([labels.label(piece)])) for piece, _ in HELD_BACK] == HELD_BACK
    assert stream.finish() == "Ｇ" and stream.finish() == ""
    assert stream.push([labels.label("们")]) == " 们" and stream.finish() == ""  # a sentence after a letter
    assert stream.push([labels.label("\u2581我")]) == "我"  # and after a Chinese one


def test_where_lines_are_broken() -> None:
    assert split_runs("我用GPT-4。") == ["我", "用", "GPT-4", "。"] and split_runs("don't") == ["don't"]
    assert split_runs("ที่นี่") == ["ที่", "นี่"] and split_runs("เกาะน้ำ") == ["เก", "า", "ะ", "น้ำ"]
    assert width("我a\u0301ｶ") == 4 and is_open("吗？”") and not is_open("吗 ?") and not is_open("")


def test_words_in_parts_are_joined_for_receivers_who_put_spaces() -> None:
    words = WholeWords()
    given = ["我们", "用GPT。", " the", " red 屋", "屋", " is", " on", " it。"]
    assert [words.push(delta) for delta in given] == ["", "", "我们用GPT。 the", "red", "", "屋屋 is", "on", ""]
    assert words.push("", final=True) == "it。"
    labels = TextLabels(["a", "天", "\u0e31"])  # a Thai mark behind a Chinese character
    deltas, words = streamed(labels, [[4, 5, 6]]), WholeWords()
    assert [words.push(deltas[0]), words.push(deltas[1], final=True)] == ["", "a天\u0e31"]


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, System]:
    """Random systems in float64: Chinese letters alone, and mixed scripts with bytes, cut into segments."""
    folder = tmp_path_factory.mktemp("languages")
    letters = ["".join(char for char in sentence if "\u4e00" <= char <= "\u9fff") for sentence in CHINESE]
    options = {"dtype": torch.float64, "units": False}
    return {
        "chinese": make_bundle(folder / "zh", language="zh", sentences=letters, size=90, **options),
        "mixed": make_bundle(
            folder / "mixed", language="ja", sentences=MIXED, size=460, byte_fallback=True, seconds=7, **options
        ),
    }


def emissions_of(system: System, samples: np.ndarray, cuts: list[int], policy: ChunkPolicy) -> list[Emission]:
    stream = system.stream(policy)
    emissions = [emission for piece in np.split(samples, sorted(cuts)) for emission in stream.push(piece)]
    return emissions + stream.push([], final=True)


@few
@hypothesis.given(
    kind=st.sampled_from(["chinese", "mixed"]),
    seed=st.integers(0, 20),
    seconds=st.floats(0, 12),
    cuts=st.lists(st.floats(0, 1), max_size=6),
    chunk=st.sampled_from([160, 320, "offline"]),
)
def test_any_cut_of_the_samples_gives_the_offline_text(
    systems: dict[str, System], kind: str, seed: int, seconds: float, cuts: list[float], chunk: int | str
) -> None:
    system, samples = systems[kind], make_signal(seconds, seed=seed)
    policy = system.policy(chunk)
    emissions = emissions_of(system, samples, [int(cut * len(samples)) for cut in cuts], policy)
    assert "".join(emission.delta for emission in emissions) == translate_samples(system, samples, policy=policy).text
    assert not any(emission.text != emission.text.strip() for emission in emissions)
    written = [emission.delta for emission in emissions if emission.text]
    for before, after in zip(written, written[1:]):
        check_seam(before, after)


def test_chinese_leaves_with_its_chunk(systems: dict[str, System]) -> None:
    system = systems["chinese"]
    emissions = emissions_of(system, make_signal(8.0, seed=3), [], system.policy(320))
    assert [emission.text for emission in emissions] == [system.text.decode(e.tokens) for e in emissions]
    assert sum(bool(emission.text) for emission in emissions) >= 10
    assert sum(len(emission.text) for emission in emissions[:-1]) >= 20
    assert not any(emission.space for emission in emissions if emission.text)
