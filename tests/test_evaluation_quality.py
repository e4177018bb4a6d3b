"""Quality: normalisation, BLEU and chrF with signatures, units, word error rate."""

from __future__ import annotations

import math

import pytest

from nast_s2x.metrics import quality
from nast_s2x.metrics import text as text_module
from nast_s2x.metrics.quality import (
    asr_bleu,
    bleu,
    chrf,
    edit_distance,
    sentence_asr_bleu,
    sentence_bleu,
    unit_bleu,
    word_error_rate,
)
from nast_s2x.metrics.text import normalise, rules_of, units_of
from nast_s2x.writing import lacks_spaces

pytest.importorskip("sacrebleu")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("He doesn't know:  why?", "he doesn't know why"),
        ("He doesn’t — know… “why”?!", "he doesn't know why"),
        ("'Quoted' words' end", "quoted words end"),
        ("Caf\u0065\u0301 ÉTÉ ﬁn", "café été fin"),  # a combining accent, a ligature
        ("twenty-one 3,5 3.5\n", "twenty one 3 5 3 5"),
        (" ... ", ""),
        ("", ""),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal


def test_bleu_by_hand() -> None:
    # "a b c d e" against "a b c d f": 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples, equal length.
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu(["a b c d e"], ["a b c d f"]).value == pytest.approx(expected)
    # One word less: all of 4, 3, 2, 1 fit; brevity penalty exp(1 - 5 / 4).
    assert bleu(["a b c d"], ["a b c d f"]).value == pytest.approx(100 * math.exp(1 - 5 / 4))
    # Over all texts together, an empty one included: 8 of 9 words, 6 of 7, 4 of 5, 2 of 3; length 9 against 12.
    expected = 100 * math.exp(1 - 13 / 9) * (8 / 9 * 6 / 7 * 4 / 5 * 2 / 3) ** 0.25
    assert bleu(["a b c d e", "a b c d", ""], ["a b c d f", "a b c d f", "g h i"]).value == pytest.approx(expected)


def test_texts_count_as_they_stand_and_transcripts_normalised() -> None:
    text, reference = ["The house, is red and old."], ["the house is red and old"]
    assert bleu(text, reference).value < 60
    assert asr_bleu(text, reference).value == pytest.approx(100)
    assert sentence_asr_bleu(text, reference) == [pytest.approx(100)] and sentence_bleu(text, reference)[0] < 60


def test_signatures() -> None:
    texts = ["a b c d"]
    assert "tok:13a" in bleu(texts, texts).signature and "version:" in bleu(texts, texts).signature
    assert "tok:none" in asr_bleu(texts, texts).signature and "tok:none" in unit_bleu([[1]], [[1]]).signature
    assert chrf(texts, texts).signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")
    assert chrf(texts, texts).value == 100


def test_unit_bleu_takes_units_as_words() -> None:
    # 12 12 7 9 against 12 7 9 9: words 12, 7, 9 fit: 3 of 4; pairs "12 7", "7 9": 2 of 3; triples "12 7 9": 1 of 2;
    # quadruples 0 of 1, smoothed by sacreBLEU to 1 / 2.
    expected = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    assert unit_bleu([[12, 12, 7, 9]], [[12, 7, 9, 9]]).value == pytest.approx(expected)
    assert unit_bleu([[]], [[1, 2, 3]]).value == 0


def test_sentence_bleu_of_short_texts() -> None:
    # Two words have no triples: only orders 1 and 2 count.
    assert sentence_bleu(["red house", "", "red"], ["red house", "red", "house"]) == [pytest.approx(100), 0, 0]


def test_edit_distance() -> None:
    assert edit_distance("kitten", "sitting") == 3  # k -> s, e -> i, + g
    assert edit_distance("", "abc") == 3 and edit_distance("abc", "") == 3 and edit_distance("abc", "abc") == 0


def test_word_error_rate() -> None:
    # One substitution of 3 words, one insertion against 1, case and punctuation aside: 2 of 4.
    assert word_error_rate(["The red horse.", "no, no"], ["the red house", "No!"]) == 50
    assert word_error_rate(["", "a b c"], ["a", ""]) == 400
    with pytest.raises(ValueError, match="contain no words"):
        word_error_rate(["a"], ["..."])


@pytest.mark.parametrize("name", ["bleu", "chrf", "asr_bleu", "unit_bleu", "sentence_bleu", "word_error_rate"])
def test_lists_must_match(name: str) -> None:
    function = getattr(quality, name)
    with pytest.raises(ValueError, match="2 hypotheses do not match 1 references"):
        function(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="at least one hypothesis is needed"):
        function([], [])


@pytest.mark.parametrize(
    "language, unit, tokenizer",
    [(None, "word", "13a"), ("de", "word", "13a"), ("ko", "word", "13a"), ("zh", "char", "zh"), ("zh-TW", "char", "zh"),
     ("ZH_cn", "char", "zh"), ("cmn", "char", "zh"), ("th", "char", "char")],
)  # fmt: skip
def test_the_language_decides_between_words_and_characters(language: str | None, unit: str, tokenizer: str) -> None:
    rules = rules_of(language)
    assert (rules.unit, rules.tokenizer, rules.note) == (unit, tokenizer, "")


def test_japanese_without_its_packages_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module.importlib.util, "find_spec", lambda name: None)
    rules = rules_of("ja-JP")
    assert (rules.unit, rules.tokenizer) == (
        "char",
        "char",
    ) and "install ja-mecab with `pip install 'sacrebleu[ja]'`" in rules.note
    monkeypatch.setattr(text_module.importlib.util, "find_spec", lambda name: object())
    assert rules_of("jpn").tokenizer == "ja-mecab" and not rules_of("jpn").note


def test_japanese_with_its_packages() -> None:
    pytest.importorskip("MeCab", reason="needs the extra japanese")
    pytest.importorskip("ipadic", reason="needs the extra japanese")
    score = bleu(["私は猫です。"], ["私は犬です。"], rules_of("ja").tokenizer)
    assert "tok:ja-mecab" in score.signature and 0 < score.value < 100


def test_characters() -> None:
    assert units_of("我 是\t猫", "char") == ["我", "是", "猫"] and units_of(" a  b ", "word") == ["a", "b"]
    assert normalise("我是，ＡI。", "char") == "我 是 a i"
    assert word_error_rate(["我是狗。"], ["我是猫"], "char") == pytest.approx(100 / 3)
    assert asr_bleu(["我是一只猫。"], ["我是一只猫"], "char").value == pytest.approx(100)
    assert (
        lacks_spaces("我是 a 猫。")
        and not lacks_spaces("the 猫 sleeps")
        and not lacks_spaces("나는 고양이")
        and not lacks_spaces("")
    )
