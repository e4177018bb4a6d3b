"""The example corpus: its text (fast), its checks against plain versions, and speech where espeak-ng exists."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_folder import text_line

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from espeak_fr_en import broken_words, build, checks, long_stream, numerals, speech  # noqa: E402
from espeak_fr_en import corpus as texts  # noqa: E402
from espeak_fr_en.grammar import Grammar  # noqa: E402
from espeak_fr_en.morphology import Action, Subject, english_join, french_join, french_verb  # noqa: E402
from espeak_fr_en.phrases import Phrases  # noqa: E402
from espeak_fr_en.verbs import TRANSITIVE  # noqa: E402

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def corpus() -> texts.Corpus:
    return texts.generate(seed=3, train=3000, dev=60, test=60)


def plain_distance(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def test_edit_distance_equals_the_plain_one() -> None:
    rng = random.Random(0)
    lengths = [0, 1, 2, 63, 64, 65, 127, 128, 129, 140, *(rng.randint(1, 90) for _ in range(30))]
    words = ["".join(rng.choice("abcé ") for _ in range(length)) for length in lengths]
    for pattern in words[:14]:
        expected = [plain_distance(pattern, text) for text in words]
        assert checks.EditDistance(words)(pattern).tolist() == expected
    assert checks.EditDistance(["abc"])("xyz").tolist() == [3]  # characters that no text has
    assert checks.nearest(["le chat", "un chien noir"], ["le chien noir"]) == [1]


def test_generation_is_deterministic() -> None:
    first, again, other = (texts.generate(seed, 200, 10, 10) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_the_default_corpus_has_not_changed() -> None:
    """The committed model was trained on the corpus of seed 1: the grammar must go on making it."""
    grammar = Grammar(1)
    made = "\n".join(f"{sentence.french}\t{sentence.english}" for sentence in (grammar.sentence() for _ in range(500)))
    assert (
        hashlib.sha256(made.encode()).hexdigest() == "1c0b00b9c936c686d4eb150737b30b339dc965a5d79529ce30a441d401d92b0d"
    )


def test_splits_do_not_overlap(corpus: texts.Corpus) -> None:
    everything = corpus.train + corpus.dev + corpus.test
    assert len({sentence.french for sentence in everything}) == len(everything) == 3120
    assert len({sentence.english for sentence in everything}) == len(everything)


def test_word_forms_lengths_constructions_and_memory(corpus: texts.Corpus) -> None:
    figures = texts.statistics(corpus)
    assert 600 <= figures["english_word_forms"] <= 800
    assert 9 <= figures["mean_english_words"] <= 10.5
    assert len(figures["constructions"]) >= 15
    assert figures["nearest_sentence_bleu"] <= 30
    known = {word for sentence in corpus.train for word in sentence.english.split()}
    assert all(known.issuperset(sentence.english.split()) for sentence in corpus.dev + corpus.test)
    counts = checks.word_forms([sentence.english for sentence in corpus.train])
    assert "twelve" not in counts
    assert sum(count >= 2 for count in counts.values()) > 0.95 * len(counts)


def test_text_is_plain_and_the_lengths_hold(corpus: texts.Corpus) -> None:
    for sentence in corpus.train:
        assert re.fullmatch(r"[a-zà-ÿœ' -]+", sentence.french), sentence.french
        assert re.fullmatch(r"[a-zé' ]+", sentence.english), sentence.english
        assert "  " not in sentence.french + sentence.english
        assert 5 <= len(sentence.english.split()) <= 16


WRONG_FRENCH = (
    r"\b(?:à|de) les? (?!\w+(?:er|ir|re)\b)",  # contraction: au, aux, du, des (but: de les voir)
    r"\b(?:je|ne|de|que|la|me) (?=[aeiouéêè])",  # elision
    r"\b(?:ma|ce) (?=[aeiouéêè])",  # mon amie, cet homme
    r"\bil (?:\w+ent|sont|ont)\b(?<!vient)(?<!sent)",  # number of the verb
    r"\bsi ils?\b",
    r"(?<!-)\bsept (?:chats|chiens|pommes|voitures|livres)\b",  # sounds like cette
    r"\bdeux (?:de|des)\b",
    r"\b(?:leurs|ses|sa|son)\b",
)


@pytest.mark.parametrize("pattern", WRONG_FRENCH)
def test_no_french_sentence_breaks_a_rule(corpus: texts.Corpus, pattern: str) -> None:
    for sentence in corpus.train:
        assert not re.search(pattern, sentence.french), sentence.french


WRONG_ENGLISH = (
    r"\ba (?:apple|orange|old|actor|umbrella|envelope|expensive|elegant|empty|interesting|armchair)\b",
    r"\ban (?!apple|orange|old|actor|umbrella|envelope|expensive|elegant|empty|interesting|uncle|aunt|a(?:part|irpo))",
    r"(?<!does )(?<!did )\b(?:he|she|it) (?:do|have|are|want|must to|go)\b",
    r"\b(?:did|does|do) \w+ (?:\w+ed)\b(?<!need)(?<!feed)",
    r"\b(?:did|does) not \w+s\b(?<!cross)",
    r"\bdo (?:he|she)\b",
    r"\b(?!ten|twenty)(\w+) \1\b",
)


@pytest.mark.parametrize("pattern", WRONG_ENGLISH)
def test_no_english_sentence_breaks_a_rule(corpus: texts.Corpus, pattern: str) -> None:
    for sentence in corpus.train:
        assert not re.search(pattern, sentence.english), sentence.english


def test_they_is_heard(corpus: texts.Corpus) -> None:
    """ils and elles only where the verb sounds unlike its singular: ont, sont, vont, peuvent, a future, a liaison."""
    before = r"(?:n'|ne |m'|nous |vous |les |le |la |lui |leur |me )*"
    verbs = r"(?:ont|sont|vont|peuvent|doivent|veulent|\w+ront|\w+aient)"
    heard = rf"\b(?:ils|elles) {before}{verbs}\b"
    for sentence in corpus.train:
        for found in re.finditer(r"\b(?:ils|elles)\b", sentence.french):
            assert re.match(heard, sentence.french[found.start() :]), sentence.french


def test_elided_pronoun_before_avoir_is_never_a_person(corpus: texts.Corpus) -> None:
    for sentence in corpus.train:
        if re.search(r"\b(?:il|elle|je|nous|vous)(?: ne)? l'(?:ai|a|avez|avons)\b", sentence.french):
            assert not re.search(r"\b(?:him|her)$", sentence.english), sentence


def test_joins() -> None:
    assert french_join("je", "ne", "le", "ai", "pas", "vu", "à", "LE", "marché") == "je ne l'ai pas vu au marché"
    assert french_join("à", "LE", "hôtel", "de", "LES", "amis") == "à l'hôtel des amis"
    assert (
        french_join("essayer", "de", "le", "voir", "parce que", "il", "est", "onze heures")
        == "essayer de le voir parce qu'il est onze heures"
    )
    assert french_join("si", "ils", "sont", "LE", "onze", "mai") == "s'ils sont le onze mai"
    assert english_join("a", "apple", "and", "a", "red", "umbrella") == "an apple and a red umbrella"


@pytest.mark.parametrize(
    ("tense", "negation", "clitic", "expected"),
    [
        ("present", "pas", "", "ne achète pas"), ("past", "jamais", "", "ne a jamais acheté"),
        ("future", "", "les", "les achètera"),
        ("near", "pas", "le", "ne va pas le acheter"), ("progressive", "", "", "est en train de acheter"),
        ("vouloir", "plus", "la", "ne veut plus la acheter"), ("past", "", "les", "les a acheté"),
    ],
)  # fmt: skip
def test_french_verb_group(tense: str, negation: str, clitic: str, expected: str) -> None:
    verb = next(verb for verb in TRANSITIVE if verb.infinitive == "acheter")
    assert french_verb(Subject("elle", "she", "il", "f"), verb, Action(tense, negation), clitic) == expected


def test_numerals() -> None:
    cases = {21: "vingt et un", 71: "soixante et onze", 77: "soixante-dix-sept", 80: "quatre-vingts",
             81: "quatre-vingt-un", 91: "quatre-vingt-onze", 200: "deux cents",
             1984: "mille neuf cent quatre-vingt-quatre", 2012: "deux mille douze"}  # fmt: skip
    for number, french in cases.items():
        assert numerals.french_number(number) == french
    assert len({numerals.french_number(n) for n in range(10000)}) == 10000
    assert len({numerals.english_number(n) for n in range(10000)}) == 10000
    assert numerals.clock(7, 45) == ("huit heures moins le quart", "a quarter to eight")
    assert numerals.clock(3, 30) == ("trois heures et demie", "half past three")
    assert numerals.date(1, 3) == ("le premier mars", "on the first of march")
    assert numerals.price(12, 50) == ("douze euros cinquante", "twelve euros fifty")
    with pytest.raises(ValueError, match="0..9999"):
        numerals.french_number(10000)


def test_words_are_drawn_evenly() -> None:
    phrases = Phrases(1)
    drawn = [phrases.pick("abcdefgh") for _ in range(800)]
    assert all(80 <= drawn.count(letter) <= 120 for letter in "abcdefgh")


def test_text_only_build_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build.py", "--output", str(tmp_path), "--train", "60", "--dev", "5", "--test", "5", "--text-only"]
    monkeypatch.setattr(sys, "argv", command)
    assert build.main() == 0
    lines = (tmp_path / "manifest.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t")[:7] == ["id", "audio", "src_text", "tgt_text", "split", "tgt_speech", "voice"]
    assert len(lines) == 71
    voices = {
        split: {r[6].split("+")[1] for r in (x.split("\t") for x in lines[1:]) if r[4] == split}
        for split in ("train", "dev", "test")
    }
    assert voices["train"].isdisjoint(voices["test"] | voices["dev"])
    assert len((tmp_path / "test.source.txt").read_text().splitlines()) == 5
    monkeypatch.setattr(sys, "argv", [*command, "--seed", "2"])
    assert build.main() == 1
    assert "other settings" in capsys.readouterr().err


def test_voice_variants_are_disjoint() -> None:
    lists = (speech.TRAIN_VARIANTS, speech.DEV_VARIANTS, speech.TEST_VARIANTS)
    assert len({variant for variants in lists for variant in variants}) == sum(len(variants) for variants in lists)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("le chat\tthe cat\n", [("test_00000", "le chat", "the cat")]),
        ("tgt_text\tid\tsrc_text\nthe cat\tx1\tle chat\n\n", [("x1", "le chat", "the cat")]),
        ("SRC_TEXT\tTGT_TEXT\nle chat\tthe cat\n", [("test_00000", "le chat", "the cat")]),
    ],
)
def test_reading_sentences(tmp_path: Path, content: str, expected: list[tuple[str, str, str]]) -> None:
    path = tmp_path / "sentences.tsv"
    path.write_text(content, encoding="utf-8")
    rows = build.read_sentences(path, "test")
    assert [(row["id"], row["src_text"], row["tgt_text"]) for row in rows] == expected


@pytest.mark.parametrize("content", ["", "seul\n", "id\tsrc_text\ttgt_text\n../x\ta\tb\n", "\tthe cat\n"])
def test_wrong_sentences_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sentences.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="sentences.tsv"):
        build.read_sentences(path, "test")


def test_missing_espeak_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="apt install espeak-ng"):
        speech.find_espeak()


def test_finish_pads_levels_and_adds_noise() -> None:
    tone = np.sin(np.arange(22050) / 10).astype(np.float32)
    silent = np.pad(tone, (2205, 4410))
    quiet = speech.Utterance("a", "", "", "", 180, 50, 0.7, 120.0, 1)
    samples = speech.finish(silent, 22050, quiet)
    assert samples.dtype == np.float32
    assert abs(samples.size - 1.5 * 16000) < 200
    assert np.abs(samples).max() == pytest.approx(0.7, abs=1e-3)
    assert np.abs(samples[:1600]).max() < 1e-5
    noisy = speech.finish(silent, 22050, speech.Utterance("a", "", "", "", 180, 50, 0.7, 30.0, 1))
    ratio = 10 * np.log10(np.mean(samples[1600:-6400] ** 2) / np.mean((noisy - samples) ** 2))
    assert ratio == pytest.approx(30, abs=0.5)
    assert noisy[:1600].std() > 1e-4  # silence is never digital silence


def test_the_target_voice_is_one_voice() -> None:
    planned = [speech.plan_target(f"train_{number}", "the cat", "", 1) for number in range(20)]
    assert len({utterance.noise_seed for utterance in planned}) == 20
    assert {(u.voice, u.speed, u.pitch, u.peak, u.snr, u.melody) for u in planned} == {
        (speech.TARGET_VOICE, speech.TARGET_SPEED, speech.TARGET_PITCH, speech.TARGET_PEAK, speech.TARGET_SNR, 0)
    }


def test_every_recording_has_a_noise_floor() -> None:
    ratios = [speech.plan(f"train_{number}", "", "", speech.voices("train"), 1).snr for number in range(50)]
    assert all(30 <= ratio <= 45 for ratio in ratios)


@needs_espeak
def test_speaking_given_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    table = tmp_path / "sentences.tsv"
    table.write_text("le chat dort dans la cuisine\tthe cat sleeps in the kitchen\n- oui\tyes\n", encoding="utf-8")
    command = ["build.py", "--sentences", str(table), "--voices", "fr+m3,fr-be+f2", "--jobs", "1", "--output"]
    audio = []
    for name in ("first", "again"):
        monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / name)])
        assert build.main() == 0
        path = tmp_path / name / "audio" / "test" / "test_00000.flac"
        samples, rate = soundfile.read(path)
        assert rate == 16000
        assert samples.ndim == 1
        assert 1.2 < samples.size / rate < 3.5
        audio.append(samples)
    assert np.array_equal(*audio)
    target, rate = soundfile.read(tmp_path / name / "target" / "test" / "test_00000.flac")
    assert rate == 16000 and 1.2 < target.size / rate < 3.5
    assert np.abs(target).max() == pytest.approx(speech.TARGET_PEAK, abs=0.02)
    stamp = path.stat().st_mtime_ns
    assert build.main() == 0  # finished files are kept
    assert path.stat().st_mtime_ns == stamp


@needs_espeak
def test_unknown_voice_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody"):
        speech.check_voices(["fr+nobody"], speech.find_espeak())


def test_broken_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words of the output that no training translation has, for each chunk size."""
    (tmp_path / "m.tsv").write_text("id\ttgt_text\tsplit\na\tthe cat\ttrain\nb\tthe menis\ttest\n")
    for chunk, texts_of_chunk in {"320": ["the menis", "the cat"], "offline": ["the cat"]}.items():
        (tmp_path / "run" / chunk).mkdir(parents=True)
        lines = [text_line(index, text.split(), 320, tmp_path) for index, text in enumerate(texts_of_chunk)]
        log = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "run" / chunk / "instances.log").write_text(log)
    assert broken_words.main([str(tmp_path / "m.tsv"), str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["320: 250.0 of 1,000 words (menis)", "offline: 0.0 of 1,000 words ()"]
    assert broken_words.main([str(tmp_path / "m.tsv"), str(tmp_path)]) == 1
    assert "no CHUNK/instances.log" in capsys.readouterr().err


def test_the_recordings_as_one_stream(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[1] / "examples" / "espeak_fr_en"
    arguments = [str(example / "recordings" / "manifest.tsv"), str(example / "bundle"), "--limit", "6"]
    assert long_stream.main([*arguments, "--left-ms", "5120"]) == 0
    once = json.loads(capsys.readouterr().out)
    assert once["segments"] == 1 and once["left_ms"] == "5120"
    assert once["bleu"] > 80 and once["bleu_one_by_one"] > 80
    assert long_stream.main([*arguments, "--minutes", "0.6", "--chunk-ms", "640"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert 0.6 <= again["minutes"] < 0.8 and again["bleu"] > 80
