"""Evaluation of the speech of long recordings: words timed in playback, parts for the recogniser, the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from random_system import make_bundle, make_signal

pytest.importorskip("sacrebleu")
EXAMPLE = Path(__file__).parents[1] / "examples" / "espeak_fr_en"
sys.path.insert(0, str(EXAMPLE.parent))

from espeak_fr_en import long_recordings  # noqa: E402

from nast_s2x.cli.main import main  # noqa: E402
from nast_s2x.corpus import read_manifest  # noqa: E402
from nast_s2x.errors import NastError  # noqa: E402
from nast_s2x.evaluation import spoken  # noqa: E402
from nast_s2x.evaluation.compare import compare  # noqa: E402
from nast_s2x.evaluation.longform import RESEGMENTED, read_long_form, score_long_form  # noqa: E402
from nast_s2x.evaluation.scoring import score  # noqa: E402
from nast_s2x.inference.bundle import save_bundle  # noqa: E402
from nast_s2x.recognisers import RecognisedWord, Transcript  # noqa: E402

WORDS = ["The", "small", "house,", "is", "red.", "A", "big", "dog", "sleeps!"]
RATE = 16000


def said(number: int, ms: int = 100) -> NDArray[np.float32]:
    """The word of this number: a tone at half of the sample rate whose level tells the number."""
    sign = np.where(np.arange(RATE * ms // 1000) % 2, -1, 1)
    return (sign * (number + 1) / 64).astype(np.float32)


def silence(ms: int) -> NDArray[np.float32]:
    return np.zeros(RATE * ms // 1000, np.float32)


class Ear:
    """A recogniser that knows the words of :func:`said`; it notes the longest waveform."""

    identity = "ear"

    def __init__(self, timed: bool = True) -> None:
        self.timed, self.longest, self.calls = timed, 0, 0

    def transcribe(self, waveforms: Sequence[NDArray[np.float32]], progress: bool = False) -> list[Transcript]:
        self.longest = max(self.longest, *map(len, waveforms))
        self.calls += 1
        assert all(waveform.any() for waveform in waveforms), "digital silence needs no recogniser"
        return [self._one(waveform) for waveform in waveforms]

    def _one(self, waveform: NDArray[np.float32]) -> Transcript:
        numbers = np.rint(np.abs(waveform) * 64).astype(int)
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
        runs = [(WORDS[numbers[a] - 1], a / RATE, b / RATE) for a, b in zip(edges, edges[1:]) if numbers[a]]
        words = tuple(RecognisedWord(*run) for run in runs)
        return Transcript(" ".join(word.text for word in words), words if self.timed else None)


def folder_of(
    folder: Path, pieces: list[tuple[float, float, NDArray[np.float32]]], language: str | None = "en"
) -> Path:
    """An evaluation of one recording of 4 s with two sentences; pieces of speech as (delay, elapsed, samples)."""
    (folder / "320" / "wavs").mkdir(parents=True)
    sound, end_ms = [], pieces[0][0]
    for delay, _, samples in pieces:
        sound += [silence(round(max(0.0, delay - end_ms))), samples]
        end_ms = max(delay, end_ms) + len(samples) / 16
    soundfile.write(folder / "320" / "wavs" / "0_pred.wav", np.concatenate(sound), RATE)
    emission = {"chunk": 0, "source_ms": 900.0, "written_ms": 900.0, "units": [], "samples": 0}
    line = {
        "index": 0,
        "prediction": "wavs/0_pred.wav",
        "delays": [delay for delay, _, _ in pieces],
        "elapsed": [elapsed for _, elapsed, _ in pieces],
        "durations": [len(samples) / 16 for _, _, samples in pieces],
        "reference": "the small house is red a big dog sleeps",
        "source": "/data/talk.wav",
        "source_length": 4000.0,
        "emissions": [emission | {"text": "the small house is"}, emission | {"text": "red a big cat sleeps"}],
        "push_ms": [10.0, 20.0],
        "chunk_ms": [30.0],
    }
    (folder / "320" / "instances.log").write_text(json.dumps(line) + "\n")
    entries = [{"wav": "talk.wav", "offset": start, "duration": 1.9} for start in (0.0, 2.0)]
    (folder / "segments.yaml").write_text(json.dumps(entries))
    (folder / "references.txt").write_text("The small house is red.\nA big dog sleeps.\n")
    settings = {"format": 1, "chunks": ["320"], "target_type": "speech", "num_utterances": 1, "long_form": {}}
    model = {"path": "m", "source_lang": "fr", "target_lang": language}
    (folder / "settings.json").write_text(json.dumps(settings | {"model": model}))
    return folder


PIECES = [
    (900.0, 950.0, np.concatenate([said(0), said(1), said(2, 60)])),  # 900 to 1160
    (1000.0, 1300.0, np.concatenate([said(2, 40), said(3), said(4), silence(300)])),  # 1160 to 1700
    (2600.0, 2700.0, np.concatenate([said(5), said(6)])),  # 2600 to 2800, after a gap of 900 ms
    (3900.0, 4000.0, np.concatenate([said(7), said(8)])),  # 3900 to 4100, after a gap of 1100 ms
]
DELAYS = [1000, 1100, 1200, 1300, 1400, 2700, 2800, 4000, 4100]
"""Ends of the words in playback: the third begins with the first piece and ends with the second."""
ELAPSED = [1050, 1150, 1340, 1440, 1540, 2800, 2900, 4100, 4200]
"""The same, computing included: the second piece is available after the end of the first at 1210, at 1300."""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_words_count_when_their_end_is_played(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, PIECES)
    ear = Ear()
    scores = score(folder, ear)
    first, second = lines(folder / "320" / RESEGMENTED)
    assert (first["prediction"], second["prediction"]) == ("the small house is red", "a big dog sleeps")
    assert first["reference"] == "the small house is red" and second["reference"] == "a big dog sleeps"
    assert first["emission_cu"] == pytest.approx(DELAYS[:5]) and first["emission_ca"] == pytest.approx(ELAPSED[:5])
    assert second["emission_cu"] == pytest.approx([delay - 2000 for delay in DELAYS[5:]])
    row = scores["rows"][0]
    # LongYAAL: mean lag of the words before the end, at 3.9 s, against words of 380 and 475 ms.
    lags = [delay - 380 * place for place, delay in enumerate(DELAYS[:5])], [700, 800 - 475]
    assert row["latency"]["LongYAAL"] == pytest.approx(np.mean([np.mean(values) for values in lags]))
    assert row["latency"]["LongYAAL_CA"] > row["latency"]["LongYAAL"]
    playback = {"StartOffset": 900, "EndOffset": 100, "GapNum": 2, "GapMean": 1000, "GapSum": 2000, "NumChunks": 4}
    assert {name: row["latency"][name] for name in playback} == pytest.approx(playback)
    # Computing included, there is a third gap, of 1210 to 1300.
    assert (row["latency"]["GapNum_CA"], row["latency"]["EndOffset_CA"]) == pytest.approx((3, 200))
    assert row["recordings"][0]["latency"] == row["latency"] and row["recordings"][0]["recording"] == "talk.wav"
    quality = row["quality"]
    assert (quality["ASR_BLEU"], quality["ASR_chrF"], quality["ASR_WER"]) == pytest.approx((100, 100, 0))
    assert quality["ASR_BLEU_silence"] == pytest.approx(100) and quality["BLEU"] < 80  # "cat", and no full stops
    assert scores["recogniser"] == "ear" and scores["target_type"] == "speech" and scores["notes"] == []
    entry = lines(folder / "320" / "utterances.jsonl")[1]
    assert (entry["text"], entry["transcript"]) == ("a big cat sleeps", "a big dog sleeps")
    assert entry["transcript_silence"] == "a big dog sleeps" and entry["ASR_BLEU"] == pytest.approx(100)


def test_scored_again_from_stored_transcripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, PIECES)
    scores = score(folder, Ear())
    before = (folder / "scores.json").read_bytes()
    assert main(["score", str(folder), "--no-report"]) == 0
    assert (folder / "scores.json").read_bytes() == before and "ASR_BLEU" in capsys.readouterr().out
    (folder / "transcripts.jsonl").unlink()
    row = score_long_form(folder)["rows"][0]
    assert row["latency"]["LongYAAL"] is None and row["quality"]["ASR_BLEU"] is None
    assert row["latency"]["GapSum"] == scores["rows"][0]["latency"]["GapSum"]
    assert row["quality"]["BLEU"] == scores["rows"][0]["quality"]["BLEU"]
    assert "no stored transcript of ear" in json.loads((folder / "scores.json").read_text())["notes"][0]


def test_without_a_recogniser_without_times_and_in_characters(tmp_path: Path) -> None:
    alone = score(folder_of(tmp_path / "a", PIECES))
    assert alone["rows"][0]["latency"]["LongYAAL"] is None and "no recogniser was given" in alone["notes"][0]
    assert alone["rows"][0]["latency"]["StartOffset"] == 900 and alone["rows"][0]["quality"]["ASR_WER"] is None
    untimed = score(folder_of(tmp_path / "b", PIECES), Ear(timed=False))
    assert untimed["rows"][0]["quality"]["ASR_BLEU"] == pytest.approx(100)
    assert untimed["rows"][0]["latency"]["LongLAAL"] is None and "no times of words" in untimed["notes"][0]
    characters = score(folder_of(tmp_path / "c", PIECES, "zh"), Ear())
    assert characters["unit"] == "char" and "counts characters" in characters["notes"][0]
    assert characters["rows"][0]["quality"]["ASR_WER"] == 0
    assert characters["rows"][0]["latency"]["LongYAAL"] is None


def test_a_recording_without_speech_and_words_that_are_not_recognised(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", [(900.0, 950.0, said(0)), (1500.0, 1600.0, silence(500))])
    scores = score(folder, Ear())
    assert "no word was recognised in 1 segments" in scores["notes"][0]
    folder = folder_of(tmp_path / "b", PIECES)
    log = folder / "320" / "instances.log"
    empty = {"delays": [], "elapsed": [], "durations": [], "emissions": []}
    log.write_text(json.dumps(json.loads(log.read_text()) | empty))
    row = score(folder, Ear())["rows"][0]
    assert row["empty"] == 2 and row["quality"]["ASR_WER"] == 100 and set(row["latency"].values()) == {None}


def test_parts_end_in_pauses_and_depend_on_the_samples_alone() -> None:
    rng = np.random.default_rng(1)

    def loud(seconds: float) -> NDArray[np.float32]:
        """Noise whose level changes every 100 ms, as that of syllables."""
        level = np.where(np.arange(round(seconds * RATE)) // 1600 % 2, 0.02, 0.2)
        return (level * rng.standard_normal(len(level))).astype(np.float32)

    speech = np.concatenate([part for _ in range(12) for part in (loud(2.5), silence(300))])
    parts = [*spoken.cut_at_pauses([speech])]
    assert len(parts) == 13 and np.array_equal(np.concatenate(parts), speech) and not parts[-1].any()
    ends = np.cumsum([len(part) for part in parts[:-1]]) / RATE
    assert all(2.5 <= end - 2.8 * place <= 2.8 for place, end in enumerate(ends))
    pieces = np.split(speech, np.sort(rng.integers(0, len(speech), 300)))
    assert all(np.array_equal(*pair) for pair in zip(spoken.cut_at_pauses(pieces), parts, strict=True))
    lengths = [len(part) for part in spoken.cut_at_pauses([loud(40)])]  # without pauses
    assert sum(lengths) == 40 * RATE and 8 * RATE < max(lengths) <= spoken.LONGEST_PART * 160
    assert [*spoken.cut_at_pauses([])] == [] and [len(part) for part in spoken.cut_at_pauses([loud(0.02)])] == [320]


def test_a_long_recording_is_recognised_in_parts(tmp_path: Path) -> None:
    """150 s of speech: times are right behind many parts, and no waveform is long; silence is not transcribed."""
    number = 100
    sounds = [(said(3, 100 + place), silence(400 - place), said(4), silence(900)) for place in range(number)]
    pieces = [(1000.0 + 1500 * place, 1100.0 + 1500 * place, np.concatenate(sounds[place])) for place in range(number)]
    folder = folder_of(tmp_path, pieces)
    ear = Ear()
    score(folder, ear)
    assert ear.longest <= spoken.LONGEST_PART * 160 and ear.calls > 4
    found = [delay for entry in lines(folder / "320" / "utterances.jsonl") for delay in entry["delays"]]
    assert len(found) == 2 * number
    offsets = [0] * len(lines(folder / "320" / "utterances.jsonl")[0]["delays"])
    offsets += [2000] * (len(found) - len(offsets))
    played = [delay + offset for delay, offset in zip(found, offsets)]
    assert played == pytest.approx([time + 1500 * place for place in range(number) for time in (1100 + place, 1600)])


TALKS = {"one.wav": (1.5, 2.0), "two.wav": (1.2, 0.9, 1.4)}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Flags and output of the command on a random system with a random recogniser."""
    folder = tmp_path_factory.mktemp("talks")
    system = make_bundle(folder / "system", voice=True)
    save_bundle(system, folder / "bundle")
    ear = make_bundle(folder / "ear", units=False, seed=1)
    save_bundle(replace(ear, info=replace(ear.info, source_lang="en")), folder / "hears")
    entries, references = [], []
    for number, (name, lengths) in enumerate(TALKS.items()):
        parts, offset = [], 0.0
        for place, length in enumerate(lengths):
            entries.append({"wav": name, "offset": offset, "duration": length})
            references.append(f"The small house {number} is red {place}.\n")
            parts += [make_signal(length, seed=10 * number + place), silence(250)]
            offset += length + 0.25
        soundfile.write(folder / name, np.concatenate(parts), RATE)
    (folder / "segments.json").write_text(json.dumps(entries))
    (folder / "references").write_text("".join(references))
    (folder / "source").write_text("two.wav\none.wav\n")
    given = {"model": "bundle", "segments": "segments.json", "source": "source", "target": "references"}
    flags = [text for name, path in given.items() for text in (f"--{name}", str(folder / path))]
    flags = ["evaluate", "--long-form", *flags, "--chunk-ms", "320", "--threads", "1"]
    spoken_flags = ["--target-type", "speech", "--recogniser", str(folder / "hears")]
    assert main([*flags, *spoken_flags, "--output", str(folder / "speech")]) == 0
    return flags, folder


def test_the_command(evaluated: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    flags, folder = evaluated
    assert main([*flags, "--output", str(folder / "text"), "--no-report"]) == 0
    speech, text = (json.loads((folder / name / "scores.json").read_text())["rows"][0] for name in ("speech", "text"))
    assert (speech["quality"]["BLEU"], speech["quality"]["chrF"]) == (text["quality"]["BLEU"], text["quality"]["chrF"])
    assert [talk["segments"] for talk in speech["recordings"]] == [2, 3] and speech["latency"]["LongYAAL"] > 0
    assert set(text["latency"]) < set(speech["latency"]) and speech["quality"]["ASR_WER"] > 0
    for talk, line in zip(speech["recordings"], lines(folder / "speech" / "320" / "instances.log")[::-1]):
        samples, rate = soundfile.read(folder / "speech" / "320" / line["prediction"])
        assert Path(line["source"]).name == talk["recording"] and talk["latency"]["StartOffset"] == line["delays"][0]
        end = line["delays"][0] + 1000 * len(samples) / rate - line["source_length"]
        assert talk["latency"]["EndOffset"] == pytest.approx(end, abs=1)
        assert max(line["elapsed"]) <= line["source_length"] + sum(line["push_ms"]) + 1e-6  # in real time
    before = (folder / "speech" / "scores.json").read_bytes()
    assert main(["score", str(folder / "speech")]) == 0
    assert (folder / "speech" / "scores.json").read_bytes() == before
    page = (folder / "speech" / "report.html").read_text()
    assert page.count('<svg class="timeline"') == 2 and "Sum of gaps" in page and "Hollow" not in page
    capsys.readouterr()
    assert main(["score", str(folder / "text"), "--recogniser", str(folder / "hears")]) == 1
    assert "holds text output" in capsys.readouterr().err


def test_speech_is_compared(evaluated: tuple[list[str], Path]) -> None:
    folder = evaluated[1] / "speech"
    row = compare([folder, folder], samples=10)["rows"][0]
    assert set(row["systems"][1]["significance"]) == {"BLEU", "chrF", "ASR_BLEU"}
    with pytest.raises(NastError, match="recogniser applies to speech output only"):
        settings = folder / "settings.json"
        values = json.loads(settings.read_text())
        try:
            settings.write_text(json.dumps(values | {"target_type": "text"}))
            score(folder, Ear())
        finally:
            settings.write_text(json.dumps(values))


def joined(folder: Path, count: int) -> list[str]:
    """Flags for the example's recordings, joined."""
    manifest = str(EXAMPLE / "recordings" / "manifest.tsv")
    assert long_recordings.main([manifest, str(folder), "--count", str(count)]) == 0
    given = {"source": "source.txt", "segments": "segments.yaml", "target": "references.txt"}
    return [text for name, path in given.items() for text in (f"--{name}", str(folder / path))]


def test_the_examples_recordings_joined(tmp_path: Path) -> None:
    joined(tmp_path, 8)
    test_set, recordings = read_long_form(
        *(tmp_path / name for name in ("source.txt", "references.txt", "segments.yaml"))
    )
    assert [len(talk.segments) for talk in recordings] == [8, 8, 4] and len(test_set) == 3
    rows = read_manifest(EXAMPLE / "recordings" / "manifest.tsv").rows
    samples, _ = soundfile.read(tmp_path / "talk_1.wav", dtype="float32")
    for row, part in zip(rows[8:16], recordings[1].segments, strict=True):
        original, start = row.audio.samples(), round(part.offset_s * RATE)
        assert part.reference == row.target_text and part.duration_s * RATE == len(original)
        np.testing.assert_allclose(samples[start : start + len(original)], original, atol=2 / 32768)
    assert (tmp_path / "transcripts.txt").read_text().splitlines() == [row.source_text for row in rows]


@pytest.mark.slow
def test_the_examples_speech(tmp_path: Path) -> None:
    """The figures of examples/espeak_fr_en/speech_bundle/README.md."""
    flags = ["evaluate", "--long-form", "--model", str(EXAMPLE / "speech_bundle"), *joined(tmp_path, 10)]
    flags += ["--target-type", "speech", "--recogniser", str(EXAMPLE / "recogniser"), "--chunk-ms", "320"]
    assert main([*flags, "--output", str(tmp_path / "out"), "--no-report"]) == 0
    row = json.loads((tmp_path / "out" / "scores.json").read_text())["rows"][0]
    quality = {"ASR_BLEU": 72.7, "ASR_BLEU_silence": 73.9, "ASR_WER": 15.0, "BLEU": 95.8}
    assert {name: row["quality"][name] for name in quality} == pytest.approx(quality, abs=2)
    latency = {"LongYAAL": 1195, "LongLAAL": 1204, "StartOffset": 840, "EndOffset": 1005, "GapSum": 5170}
    assert {name: row["latency"][name] for name in latency} == pytest.approx(latency, abs=50)
