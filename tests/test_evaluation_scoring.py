"""Scores of stored logs: figures, unknown figures, stored transcripts, logs written by SimulEval; the command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nast_s2x.cli.main import main
from nast_s2x.errors import ConfigError
from nast_s2x.evaluation.score_files import table
from nast_s2x.evaluation.scoring import score
from nast_s2x.files import locked
from nast_s2x.metrics import latency
from nast_s2x.metrics.quality import bleu, chrf, unit_bleu
from nast_s2x.recognisers import RecognisedWord, Transcript

pytest.importorskip("sacrebleu")
REPOSITORY = Path(__file__).parent.parent

REFERENCES = ["the small house is red", "the hill is old", "a red house"]


class Ear:
    """A recogniser for tests: a waveform has one word per 50 ms of samples that are not zero."""

    identity = "ear 1"

    def __init__(self, timed: bool = True) -> None:
        self.timed, self.heard = timed, 0

    def transcribe(self, waveforms: Sequence[np.ndarray], progress: bool = False) -> list[Transcript]:
        self.heard += len(waveforms)
        return [self._one(waveform) for waveform in waveforms]

    def _one(self, waveform: np.ndarray) -> Transcript:
        words = ["The", "small", "house,", "is", "red!"][: np.count_nonzero(waveform) // 800]
        times = tuple(RecognisedWord(word, 0.05 * place, 0.05 * (place + 1)) for place, word in enumerate(words))
        if not waveform.all():
            words = words[:-1]  # silence within costs the last word
        return Transcript(" ".join(words), times if self.timed else None)


def settings(folder: Path, target_type: str, chunks: list[str], num_utterances: int = 3) -> None:
    model = {"path": "m", "sha256": "0" * 64, "source_lang": "fr", "target_lang": "en", "example": None}
    values = {"format": 1, "model": model, "num_utterances": num_utterances, "target_type": target_type}
    (folder / "settings.json").write_text(json.dumps(values | {"chunks": chunks}))


def write_log(folder: Path, lines: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "instances.log").write_text("".join(json.dumps(line) + "\n" for line in lines))


def line(index: int, delays: list[float], **more: Any) -> dict[str, Any]:
    elapsed = [delay + 10 * (place + 1) for place, delay in enumerate(delays)]
    return {
        "index": index, "delays": delays, "elapsed": elapsed, "reference": REFERENCES[index], "source": "x.wav",
        "source_length": 2000.0, "audio": f"/data/{index}.wav", "id": f"utt{index}", "units": None,
        "emissions": [], "push_ms": [10.0, 20.0 * index], "chunk_ms": [10.0 + 10 * index], **more,
    }  # fmt: skip


def text_lines() -> list[dict[str, Any]]:
    """The second output is empty."""
    return [
        line(0, [655, 655, 975, 1295, 2000], prediction="the small house is old"),
        line(1, [], prediction=""),
        line(2, [975, 2000], prediction="red house"),
    ]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    settings(tmp_path, "text", ["320", "1280", "offline"])
    for chunk in ("offline", "1280", "320"):
        write_log(tmp_path / chunk, text_lines())
    return tmp_path


def speech_lines(folder: Path) -> list[dict[str, Any]]:
    """Pieces of 100 and 150 ms at 655 and 975, without gap or with one; nothing; 150 ms at the end."""
    (folder / "wavs").mkdir(parents=True)
    tone = 0.5 * np.ones(16 * 250)
    soundfile.write(folder / "wavs/0_pred.wav", np.concatenate([tone[:1600], np.zeros(16 * 220), tone[1600:]]), 16000)
    soundfile.write(folder / "wavs/2_pred.wav", tone[:2400], 16000)
    written = [
        {"chunk": 1, "source_ms": 655, "written_ms": 655, "text": "the small", "units": [1, 2]},
        {"chunk": 2, "source_ms": 975, "written_ms": 975, "text": "house", "units": [3]},
    ]
    return [
        line(0, [655, 975], prediction="wavs/0_pred.wav", durations=[100, 150], emissions=written, units="1 2 3 4"),
        line(1, [], prediction="wavs/1_pred.wav", durations=[], units="5"),
        line(2, [2000], prediction="wavs/2_pred.wav", durations=[150], units="6 7"),
    ]


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    settings(tmp_path, "speech", ["320"])
    write_log(tmp_path / "320", speech_lines(tmp_path / "320"))
    return tmp_path


def stored(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text())


def test_scores_of_text(text: Path) -> None:
    scores = score(text)
    assert scores == stored(text) and scores["target_type"] == "text" and scores["recogniser"] is None
    assert scores["settings"] == json.loads((text / "settings.json").read_text())
    assert [(row["chunk"], row["chunk_ms"]) for row in scores["rows"]] == [
        ("320", 320), ("1280", 1280), ("offline", None)
    ]  # fmt: skip
    row = scores["rows"][0]
    assert (row["utterances"], row["empty"]) == (3, 1)
    outputs = ["the small house is old", "", "red house"]
    assert row["quality"] == {
        "BLEU": bleu(outputs, REFERENCES).value, "chrF": chrf(outputs, REFERENCES).value,
        "unit_BLEU": None, "ASR_BLEU": None, "ASR_BLEU_silence": None, "ASR_WER": None,
    }  # fmt: skip
    assert set(row["signatures"]) == {"BLEU", "chrF"} and "tok:13a" in row["signatures"]["BLEU"]


def test_latency_is_the_mean_of_outputs_that_are_not_empty(text: Path) -> None:
    row = score(text)["rows"][0]
    first = latency.text_latency([655, 655, 975, 1295, 2000], [665, 675, 1005, 1335, 2050], 2000, 5)
    last = latency.text_latency([975, 2000], [985, 2020], 2000, 3)
    assert row["latency"] == {name: pytest.approx((first[name] + last[name]) / 2) for name in first}
    assert row["latency"]["StartOffset"] == (655 + 975) / 2 and row["latency"]["StartOffset_CA"] == (665 + 985) / 2
    lines = [json.loads(line) for line in (text / "320/utterances.jsonl").read_text().splitlines()]
    assert lines[0]["latency"] == first and set(lines[1]["latency"].values()) == {None}
    assert [entry["index"] for entry in lines] == [0, 1, 2] and lines[1]["text"] == "" and lines[1]["BLEU"] == 0
    assert lines[0]["id"] == "utt0" and lines[0]["gaps"] is None and lines[0]["transcript"] is None
    assert lines[0]["reference"] == REFERENCES[0] and lines[2]["chunk_ms"] == [30]


def test_cost(text: Path) -> None:
    cost = score(text)["rows"][0]["cost"]
    # Chunks of 10, 20, 30 ms: the 95th percentile lies 0.9 of the way from 20 to 30. Pushes: 3 * 10 + 0 + 20 + 40.
    assert cost == pytest.approx(
        {"chunk_ms_p50": 20, "chunk_ms_p95": 29, "real_time_factor": 90 / 6000, "compute_s": 0.09, "audio_s": 6}
    )


def test_sources_of_no_length_have_no_real_time_factor(tmp_path: Path) -> None:
    settings(tmp_path, "text", ["320"], num_utterances=1)
    write_log(tmp_path / "320", [line(0, [], prediction="", source_length=0.0)])
    cost = score(tmp_path)["rows"][0]["cost"]
    assert cost["real_time_factor"] is None and cost["audio_s"] == 0 and cost["compute_s"] == 0.01


def test_an_utterance_that_cannot_be_scored_is_named(tmp_path: Path) -> None:
    settings(tmp_path, "text", ["320"], num_utterances=1)
    write_log(tmp_path / "320", [line(0, [2000.0], prediction="word", reference="")])
    with pytest.raises(ValueError, match=r"320: utterance 0 \(utt0\): .* 2000.0 ms and 0 words"):
        score(tmp_path)


def test_one_process_scores_a_folder(speech: Path) -> None:
    """Two would write to the same file of transcripts."""
    with locked(speech / "scores.json"), pytest.raises(ConfigError, match=r"is at work in .*scores\.json"):
        score(speech, Ear())
    assert not (speech / "transcripts.jsonl").exists()
    assert score(speech, Ear())["recogniser"] == "ear 1"


def test_all_outputs_empty(tmp_path: Path) -> None:
    settings(tmp_path, "text", ["320"])
    write_log(tmp_path / "320", [line(index, [], prediction="") for index in range(3)])
    scores = score(tmp_path)
    row = scores["rows"][0]
    assert row["empty"] == 3 and row["quality"]["BLEU"] == 0 and set(row["latency"].values()) == {None}
    assert any("3 of 3 outputs are empty" in note for note in scores["notes"])


def test_csv_has_a_line_for_each_chunk_size(text: Path) -> None:
    scores = score(text)
    with open(text / "scores.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["chunk"] for line in lines] == ["320", "1280", "offline"]
    row = scores["rows"][0]
    for part in ("quality", "latency", "cost"):
        for name, value in row[part].items():
            assert lines[0][name] == ("" if value is None else str(value)), name
    assert lines[0]["empty"] == "1" and lines[2]["chunk_ms"] == ""


def test_the_table_leaves_out_what_no_row_has(text: Path) -> None:
    shown = table(score(text)).splitlines()
    assert shown[0].split()[:4] == ["chunk", "utterances", "empty", "BLEU"] and "LAAL_CA" in shown[0]
    assert shown[1].split()[:3] == ["320", "3", "1"] and len({len(line) for line in shown[:4]}) == 1
    assert "1 of 3 outputs are empty" in shown[4]
    assert "ASR" not in shown[0]


def test_speech_without_a_recogniser(speech: Path) -> None:
    scores = score(speech)
    row = scores["rows"][0]
    for name in ("ASR_BLEU", "ASR_BLEU_silence", "ASR_WER"):
        assert row["quality"][name] is None
    assert row["latency"]["AL_words"] is None and row["latency"]["AL_chunks_vs_words"] is not None
    texts = ["the small house", "", ""]
    assert row["quality"]["BLEU"] == bleu(texts, REFERENCES).value
    assert row["quality"]["unit_BLEU"] == unit_bleu([[1, 2, 3], [], []], [[1, 2, 3, 4], [5], [6, 7]]).value
    assert any(note.startswith("no recogniser was given") for note in scores["notes"]) and scores["recogniser"] is None
    assert "no recogniser was given" in table(scores) and "ASR_BLEU" not in table(scores)
    assert not (speech / "transcripts.jsonl").exists()


def test_speech_with_a_recogniser(speech: Path) -> None:
    ear = Ear()
    scores = score(speech, ear)
    row = scores["rows"][0]
    assert (
        scores["recogniser"] == "ear 1" and ear.heard == 3
    )  # the last output has no silence: its waveform is transcribed once
    # 250 ms are five words, 150 ms three, of which two are wrong. With silence, the first loses its last word.
    assert row["quality"]["ASR_WER"] == pytest.approx(100 * (0 + 4 + 2) / 12)
    assert row["quality"]["ASR_BLEU_silence"] < row["quality"]["ASR_BLEU"] < 100
    assert "tok:none" in row["signatures"]["ASR_BLEU"] and "lower case" in row["signatures"]["ASR_WER"]
    # Words of 50 ms end at 705, 755 | 1025, 1075, 1125 and at 2050, 2100, 2150 (after the end: AL is the first).
    step = 2000 / 5
    first = (705 + (755 - step) + (1025 - 2 * step) + (1075 - 3 * step) + (1125 - 4 * step)) / 5
    assert row["latency"]["AL_words"] == pytest.approx((first + 2050) / 2)
    # Playback 655..755 and 975..1125 (ends 875 before the source does); 2000..2150 (150 after). A gap of 220.
    assert row["latency"]["EndOffset"] == pytest.approx((-875 + 150) / 2)
    assert (row["latency"]["GapNum"], row["latency"]["GapSum"]) == (0.5, 110)
    # With computing time, pieces are available at 665 and 995: playback 665..765, 995..1145, a gap of 230.
    assert row["latency"]["GapSum_CA"] == 115 and row["latency"]["EndOffset_CA"] == (-855 + 160) / 2
    lines = [json.loads(line) for line in (speech / "320/utterances.jsonl").read_text().splitlines()]
    assert [entry["transcript"] for entry in lines] == ["The small house, is red!", "", "The small house,"]
    assert lines[0]["transcript_silence"] == "The small house, is" and lines[0]["gaps"] == [[755, 220]]
    assert lines[0]["ASR_BLEU"] == pytest.approx(100) and lines[1]["gaps"] == []
    assert "ASR_BLEU" in table(scores)


def test_stored_transcripts_need_no_recogniser(speech: Path) -> None:
    scores = score(speech, Ear())
    ear = Ear()
    assert score(speech, ear) == scores and ear.heard == 0
    assert score(speech) == scores
    # A chunk size was added that is not transcribed: its figures are unknown, the others stay.
    settings(speech, "speech", ["320", "640"])
    lines = speech_lines(speech / "640")
    soundfile.write(speech / "640/wavs/2_pred.wav", 0.25 * np.ones(2400), 16000)
    write_log(speech / "640", lines)
    again = score(speech)
    assert again["rows"][0] == scores["rows"][0] and again["rows"][1]["quality"]["ASR_BLEU"] is None
    assert any(note.startswith("640: ") and "give the recogniser again" in note for note in again["notes"])
    assert score(speech, Ear())["rows"][1]["quality"]["ASR_BLEU"] == scores["rows"][0]["quality"]["ASR_BLEU"]


def test_a_recogniser_without_times_of_words(speech: Path) -> None:
    scores = score(speech, Ear(timed=False))
    row = scores["rows"][0]
    assert (
        row["quality"]["ASR_BLEU"] > 0 and row["latency"]["AL_words"] is None and row["latency"]["AL_words_CA"] is None
    )
    assert any("no times of words" in note for note in scores["notes"])


def test_outputs_without_recognised_words_are_noted(speech: Path) -> None:
    class Deaf(Ear):
        identity = "deaf"

        def _one(self, waveform: np.ndarray) -> Transcript:
            return super()._one(waveform if len(waveform) > 2400 else waveform[:0])

    scores = score(speech, Deaf())
    assert any("no word was recognised in 1 outputs" in note for note in scores["notes"])
    assert scores["rows"][0]["latency"]["AL_words"] == pytest.approx((705 + 355 + 225 - 125 - 475) / 5)


def test_chunk_sizes_that_are_not_there_yet(text: Path) -> None:
    (text / "1280/instances.log").unlink()
    scores = score(text)
    assert [row["chunk"] for row in scores["rows"]] == ["320", "offline"] and "1280: not evaluated yet" in scores[
        "notes"
    ]
    for chunk in ("320", "offline"):
        (text / chunk / "instances.log").unlink()
    with pytest.raises(FileNotFoundError, match="nothing to score"):
        score(text)


def test_a_wrong_log_is_refused_and_nothing_is_lost(text: Path) -> None:
    score(text)
    before = (text / "scores.json").read_bytes(), (text / "320/utterances.jsonl").read_bytes()
    write_log(text / "offline", text_lines()[:2])
    with pytest.raises(ValueError, match=r"offline/instances\.log: 2 utterances, the settings say 3"):
        score(text)
    (text / "offline/instances.log").write_text("{")
    with pytest.raises(ValueError, match=r"offline/instances\.log, line 1: not valid JSON"):
        score(text)
    assert before == ((text / "scores.json").read_bytes(), (text / "320/utterances.jsonl").read_bytes())


def test_outputs_of_another_kind_are_refused(text: Path) -> None:
    settings(text, "speech", ["320"])
    with pytest.raises(ValueError, match="the logs are text, the settings say speech"):
        score(text)
    settings(text, "text", ["320"])
    with pytest.raises(ValueError, match="text output: a recogniser applies to speech output only"):
        score(text, Ear())
    settings(text, "text", ["320", "640"])
    write_log(text / "640", speech_lines(text / "640"))
    with pytest.raises(ValueError, match="some chunk sizes are text, some speech"):
        score(text)


def without_ours(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = ("audio", "id", "units", "emissions", "push_ms", "chunk_ms")
    return [{key: value for key, value in line.items() if key not in ours} for line in lines]


def test_logs_written_by_simuleval(tmp_path: Path) -> None:
    write_log(tmp_path / "run/mine", without_ours(text_lines()))
    scores = score(tmp_path / "run/mine")
    row = scores["rows"][0]
    assert (row["chunk"], row["chunk_ms"], row["empty"]) == ("mine", None, 1) and scores["settings"] is None
    assert row["latency"]["AL_CA"] > row["latency"]["AL"] and row["quality"]["BLEU"] > 0
    assert row["cost"] == {
        "chunk_ms_p50": None, "chunk_ms_p95": None, "real_time_factor": None, "compute_s": None, "audio_s": 6
    }  # fmt: skip
    write_log(tmp_path / "run/640", without_ours(text_lines()))
    assert [row["chunk"] for row in score(tmp_path / "run")["rows"]] == ["640", "mine"]


def test_speech_logs_written_by_simuleval(tmp_path: Path) -> None:
    lines = [entry | {"elapsed": []} for entry in without_ours(speech_lines(tmp_path / "640"))]
    write_log(tmp_path / "640", lines)
    scores = score(tmp_path / "640", Ear())
    row = scores["rows"][0]
    assert row["quality"]["BLEU"] is None and row["quality"]["unit_BLEU"] is None and row["quality"]["ASR_BLEU"] > 0
    assert row["latency"]["AL_words"] is not None and row["latency"]["AL_words_CA"] is None
    assert any("the log lacks the computing time of 2 outputs" in note for note in scores["notes"])
    assert any("BLEU and chrF are not known" in note for note in scores["notes"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "640", without_ours(text_lines()))
    assert main(["score", str(tmp_path), "--no-report"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("chunk") and "\n  640" in shown.out and shown.err == ""
    assert (tmp_path / "scores.csv").exists() and (tmp_path / "640/utterances.jsonl").exists()


def test_the_command_shows_errors_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failed(*argv: str) -> str:
        assert main(["score", *argv]) == 1
        shown = capsys.readouterr()
        assert shown.out == "" and shown.err.count("\n") == 1
        return shown.err

    assert "nowhere: no such folder" in failed(str(tmp_path / "nowhere"))
    assert "nothing to score" in failed(str(tmp_path))
    write_log(tmp_path / "640", speech_lines(tmp_path / "640"))
    # A recogniser that cannot be loaded is an error, never a score of 0.
    assert "missing_folder" in failed(str(tmp_path), "--recogniser", f"bundle:{tmp_path}/missing_folder")
    assert not (tmp_path / "scores.json").exists()


def test_the_command_writes_the_report(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nast_s2x.evaluation import report

    written: list[Path] = []
    monkeypatch.setattr(report, "write", lambda folder: written.append(folder) or [folder / "report.html"])
    assert main(["score", str(text), "--no-report"]) == 0 and written == []
    assert main(["score", str(text)]) == 0 and written == [text]


def test_scoring_needs_neither_simuleval_nor_torch(tmp_path: Path) -> None:
    write_log(tmp_path, text_lines())
    code = (
        "import sys\n"
        "for name in ('simuleval', 'fairseq', 'matplotlib', 'torch'): sys.modules[name] = None\n"
        "from nast_s2x.cli.main import main\n"
        f"sys.exit(main(['score', {str(tmp_path)!r}, '--no-report']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert result.returncode == 0 and result.stderr == ""
