"""Reading logs of evaluations: lines of ``nast-s2x evaluate``, lines of SimulEval, damaged lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nast_s2x.errors import NastError
from nast_s2x.evaluation.log import (
    LoggedEmission,
    LoggedUtterance,
    read_log,
    read_output_pieces,
    read_output_with_gaps,
)

EMISSION = {"chunk": 0, "source_ms": 640.0, "written_ms": 640.0, "text": "two", "units": [7]}


def text_line(index: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a line as ``nast-s2x evaluate`` writes it."""
    line = {
        "index": index,
        "prediction": "two words",
        "delays": [640.0, 960.0],
        "elapsed": [650.0, 985.0],
        "prediction_length": 2,
        "reference": "two words here",
        "source": ["/data/a.wav", "samplerate: 16000 Hz"],
        "source_length": 1000.0,
        "audio": "/data/a.wav",
        "id": "utt_a",
        "units": "7 12 7",
        "emissions": [
            {"chunk": 1, "source_ms": 655.0, "written_ms": 640.0, "text": "two", "units": [7, 12], "samples": 0},
            {"chunk": 2, "source_ms": 975.0, "written_ms": 960.0, "text": "words", "units": []},
        ],
        "push_ms": [5.0, 5.0, 15.0],
        "chunk_ms": [10.0, 15.0],
    }
    return line | changes


def speech_line(index: int = 0, **changes: Any) -> dict[str, Any]:
    speech = {"prediction": f"wavs/{index}_pred.wav", "durations": [100.0, 50.0], "delays": [640.0, 960.0]}
    return text_line(index, **speech) | changes


def write(folder: Path, *lines: dict[str, Any] | str) -> Path:
    folder.mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "instances.log").write_text(text + "\n", encoding="utf-8")
    return folder


def test_a_line_of_text(tmp_path: Path) -> None:
    utterance = read_log(write(tmp_path, text_line()))[0]
    assert (utterance.index, utterance.id, utterance.audio.path) == (0, "utt_a", Path("/data/a.wav"))
    assert (
        utterance.words == ("two", "words")
        and utterance.text == "two words"
        and utterance.reference_units == (7, 12, 7)
    )
    assert utterance.delays == (640, 960) and utterance.elapsed == (650, 985) and utterance.source_ms == 1000
    assert utterance.emissions == (
        LoggedEmission(1, 655.0, 640.0, "two", (7, 12), delta=" two"),
        LoggedEmission(2, 975.0, 960.0, "words", (), delta=" words"),
    )
    assert utterance.units == (7, 12) and utterance.push_ms == (5, 5, 15) and utterance.chunk_ms == (10, 15)
    assert utterance.durations is None and utterance.wav is None and not utterance.is_speech and not utterance.empty


def test_spaces_between_characters(tmp_path: Path) -> None:
    line = text_line(prediction="我ok", delays=[640.0, 640.0, 960.0], elapsed=[], text="我 ok")
    line["emissions"] = [
        line["emissions"][0] | {"text": "我 o", "delta": "我 o"},
        line["emissions"][1] | {"delta": "k"},
    ]
    utterance = read_log(write(tmp_path, line), "char")[0]
    assert utterance.words == ("我", "o", "k") and utterance.text == "我 ok"
    assert [emission.delta for emission in utterance.emissions] == ["我 o", "k"]
    assert read_log(write(tmp_path, line | {"text": "我ok "}), "char")[0].text == "我ok "
    with pytest.raises(NastError, match="text must be that of prediction, but is '我 on'"):
        read_log(write(tmp_path, line | {"text": "我 on"}), "char")
    (spoken,) = read_log(write(tmp_path, speech_line(emissions=line["emissions"])))
    assert spoken.text == "我 ok"


def test_a_line_of_speech(tmp_path: Path) -> None:
    utterance = read_log(write(tmp_path, speech_line(units=None)))[0]
    assert utterance.is_speech and utterance.durations == (100, 50) and utterance.words == ()
    assert utterance.wav == tmp_path / "wavs/0_pred.wav" and utterance.text == "two words"
    assert utterance.reference_units is None


def test_lines_written_by_simuleval(tmp_path: Path) -> None:
    ours = ("audio", "id", "units", "emissions", "push_ms", "chunk_ms")
    text = {key: value for key, value in text_line().items() if key not in ours}
    utterance = read_log(write(tmp_path / "text", text))[0]
    assert (utterance.id, utterance.audio.path) == ("a", Path("/data/a.wav"))
    assert utterance.emissions == utterance.push_ms == utterance.chunk_ms == utterance.units == ()
    assert utterance.reference_units is None and utterance.text == "two words"

    speech = {key: value for key, value in speech_line(elapsed=[], source="/data/b.flac").items() if key not in ours}
    elsewhere = "/somewhere/run/wavs/0_pred.wav"
    utterance = read_log(write(tmp_path / "speech", speech | {"prediction": elsewhere}))[0]
    assert utterance.wav == tmp_path / "speech/wavs/0_pred.wav"  # the folder has moved since
    assert utterance.elapsed == () and utterance.text == "" and utterance.id == "b"


def test_empty_outputs(tmp_path: Path) -> None:
    nothing = {"delays": [], "elapsed": [], "emissions": []}
    text = read_log(write(tmp_path / "text", text_line(prediction="", **nothing)))[0]
    assert text.empty and text.text == "" and text.words == ()
    speech = read_log(write(tmp_path / "speech", speech_line(durations=[], **nothing)))[0]
    assert (
        speech.empty
        and speech.wav is None
        and read_output_pieces(speech) == []
        and read_output_with_gaps(speech).shape == (0,)
    )


def test_lines_are_sorted_and_complete(tmp_path: Path) -> None:
    assert [u.index for u in read_log(write(tmp_path, text_line(1), text_line(0), "", text_line(2)))] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"instances\.log: index 1 is missing \(2 of 4 in all\)"):
        read_log(write(tmp_path, text_line(0), text_line(3)))
    # A huge index takes no time.
    with pytest.raises(ValueError, match=r"index 1 is missing \(999999999 of 1000000001 in all\)"):
        read_log(write(tmp_path, text_line(), text_line(index=10**9)))
    with pytest.raises(ValueError, match="line 3: index 0 appears twice"):
        read_log(write(tmp_path, text_line(0), text_line(1), text_line(0)))
    with pytest.raises(ValueError, match="holds no utterance"):
        read_log(write(tmp_path, ""))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_log(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"index": 1, "pred', "line 2: not valid JSON"),
        ("[1]", "line 2: an utterance is a JSON object, not list"),
        ({"index": 1}, "line 2: the key 'prediction' is missing"),
        (text_line(-1), "index must be a whole number from 0, not -1"),
        (text_line(1, delays=[640.0]), "2 words do not match 1 delays|2 elapsed times do not match 1 delays"),
        (text_line(1, prediction="one"), "1 words do not match 2 delays"),
        (text_line(1, elapsed=[1.0]), "1 elapsed times do not match 2 delays"),
        (text_line(1, delays=[960.0, 640.0]), "must not decrease"),
        (text_line(1, delays=[1.0, 1e308]), "delays must hold times from 0 to 1e.10 ms, not 1e.308"),
        (text_line(1, emissions=[{**EMISSION, "chunk": float("inf")}]), "an emission must be an object of numbers"),
        (text_line(1, emissions=[{**EMISSION, "source_ms": float("nan")}]), "source_ms must hold times"),
        (text_line(1, emissions=[{**EMISSION, "units": [float("inf")]}]), "units must be whole numbers"),
        (text_line(1, delays=[1.0, "2"]), "delays must hold times from 0 to 1e.10 ms, not '2'"),
        (text_line(1, delays=[-1.0, 2.0]), "not -1.0"),
        (text_line(1, delays=7), "delays must be a list of times in ms, not 7"),
        (text_line(1, source_length=None), "source_length must hold times"),
        (text_line(1, reference=None), "reference must be a text, not None"),
        (text_line(1, units="7 x"), "units must be whole numbers, not '7 x'"),
        (text_line(1, emissions=[{"chunk": 0}]), "an emission lacks the key 'source_ms'"),
        (text_line(1, emissions=[3]), "an emission must be an object .*, not 3"),
        (text_line(1, emissions=7), "emissions must be a list, not 7"),
        (text_line(True), "index must be a whole number from 0, not True"),
        ("[" * 100000, "not valid JSON: nested too deeply"),
        (speech_line(1), "text and speech outputs in one log"),
    ],
)
def test_broken_lines_are_named(line: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_log(write(tmp_path, text_line(0), line))
    assert f"{tmp_path / 'instances.log'}, line 2: " in str(error.value)


def test_a_log_that_is_not_text_is_named(tmp_path: Path) -> None:
    (write(tmp_path, text_line()) / "instances.log").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(NastError, match=r"instances\.log: not UTF-8 text \(byte 8\)"):
        read_log(tmp_path)


def test_reading_is_linear_in_the_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(LoggedUtterance, "is_speech", property(lambda self: asked.append(self.index) or False))
    assert len(read_log(write(tmp_path, *map(text_line, range(30))))) == 30
    assert len(asked) <= 2 * 30


def test_wrong_durations_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 durations do not match 2 delays"):
        read_log(write(tmp_path, speech_line(durations=[1.0])))
    with pytest.raises(ValueError, match="durations must be longer than 0 ms"):
        read_log(write(tmp_path, speech_line(durations=[1.0, 0.0])))


def sound(folder: Path, samples: np.ndarray, rate: int = 16000) -> None:
    (folder / "wavs").mkdir()
    soundfile.write(folder / "wavs/0_pred.wav", samples, rate)


def test_pieces_without_the_silence_between(tmp_path: Path) -> None:
    """100 ms at 640 and 50 ms at 960: 220 ms of silence between them, 3520 samples."""
    first, second = np.full(1600, 0.25), np.full(800, 0.5)
    sound(tmp_path, np.concatenate([first, np.zeros(3520), second]))
    utterance = read_log(write(tmp_path, speech_line()))[0]
    pieces = read_output_pieces(utterance)
    assert [piece.tolist() for piece in pieces] == [first.tolist(), second.tolist()]
    assert pieces[0].dtype == np.float32 and len(read_output_with_gaps(utterance)) == 1600 + 3520 + 800


def test_pieces_that_follow_at_once_and_other_rates(tmp_path: Path) -> None:
    """At 8 kHz, 400 ms at 640 and 50 ms that follow at once; returned at 16 kHz."""
    sound(tmp_path, np.zeros(3200 + 400), 8000)
    utterance = read_log(write(tmp_path, speech_line(durations=[400.0, 50.0])))[0]
    assert [len(piece) for piece in read_output_pieces(utterance)] == [6400, 800]
    assert len(read_output_with_gaps(utterance)) == 7200


def test_a_sound_of_another_run_is_refused(tmp_path: Path) -> None:
    sound(tmp_path, np.zeros(5000))
    utterance = read_log(write(tmp_path, speech_line()))[0]
    with pytest.raises(ValueError, match="0_pred.wav has 5000 samples, but .* make 5920"):
        read_output_pieces(utterance)
    (tmp_path / "wavs/0_pred.wav").unlink()
    with pytest.raises(ValueError, match="0_pred.wav: no such audio file"):
        read_output_pieces(utterance)
    text = read_log(write(tmp_path, text_line()))[0]
    for function in (read_output_pieces, read_output_with_gaps):
        with pytest.raises(ValueError, match="utterance 0 is text"):
            function(text)
