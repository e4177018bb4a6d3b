"""The cache of transcripts: waveforms are transcribed once, and nothing is lost or mixed up."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from nast_s2x.evaluation.transcripts import GROUP, TranscriptStore, audio_hash
from nast_s2x.recognisers import NOTHING, RecognisedWord, Transcript


class FakeRecogniser:
    """A recogniser for tests: the transcript is the number of samples; records the lengths, may fail at a length."""

    def __init__(self, identity: str = "fake", timed: bool = True, gives_up_at: int = -1) -> None:
        self.identity, self.timed, self.gives_up_at = identity, timed, gives_up_at
        self.heard: list[int] = []

    def transcribe(self, waveforms: list[np.ndarray], progress: bool = False) -> list[Transcript]:
        if self.gives_up_at in map(len, waveforms):
            raise KeyboardInterrupt
        self.heard += map(len, waveforms)
        words = [RecognisedWord(f"né{len(w)}", 0.1, len(w) / 16000) for w in waveforms]
        return [Transcript(f"{w.text} {self.identity}", (w,) if self.timed else None) for w in words]


def waves(*lengths: int) -> list[np.ndarray]:
    return [np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in lengths]


def test_only_new_waveforms_are_transcribed_in_order(tmp_path: Path) -> None:
    path, recogniser = tmp_path / "new" / "transcripts.jsonl", FakeRecogniser()
    first = TranscriptStore(path).transcribe(recogniser, waves(300, 100, 200, 100))
    assert [t.text for t in first] == ["né300 fake", "né100 fake", "né200 fake", "né100 fake"]
    assert recogniser.heard == [100, 200, 300]  # each once, the shortest first
    again = TranscriptStore(path).transcribe(recogniser, waves(200, 400, 100))
    assert [t.text for t in again] == ["né200 fake", "né400 fake", "né100 fake"]
    assert recogniser.heard == [100, 200, 300, 400]
    assert again[0] == first[2] and len(TranscriptStore(path)) == 4


def test_lines_hold_audio_recogniser_text_and_times(tmp_path: Path) -> None:
    (wave,) = waves(1600)
    TranscriptStore(tmp_path / "t").transcribe(FakeRecogniser("one"), [wave])
    TranscriptStore(tmp_path / "t").transcribe(FakeRecogniser("two", timed=False), [wave])
    audio = hashlib.sha256(wave.tobytes()).hexdigest()
    assert [json.loads(line) for line in (tmp_path / "t").read_text("utf-8").splitlines()] == [
        {"audio": audio, "recogniser": "one", "text": "né1600 one", "words": [["né1600", 0.1, 0.1]]},
        {"audio": audio, "recogniser": "two", "text": "né1600 two", "words": None},
    ]
    store = TranscriptStore(tmp_path / "t")
    never = FakeRecogniser("two", gives_up_at=1600)
    assert store.transcribe(never, [wave]) == [Transcript("né1600 two", None)]


def test_recognisers_do_not_share_transcripts(tmp_path: Path) -> None:
    store = TranscriptStore(tmp_path / "t")
    assert store.transcribe(FakeRecogniser("one"), waves(100))[0].text == "né100 one"
    assert store.transcribe(FakeRecogniser("two"), waves(100))[0].text == "né100 two"


def test_any_change_of_a_sample_is_another_waveform() -> None:
    (wave,) = waves(100)
    other = wave.copy()
    other[-1] = np.nextafter(other[-1], 2)
    assert audio_hash(wave) == audio_hash(np.repeat(wave, 2)[::2]) != audio_hash(other)


def test_a_waveform_without_samples_is_not_transcribed(tmp_path: Path) -> None:
    recogniser = FakeRecogniser()
    store = TranscriptStore(tmp_path / "t")
    assert store.transcribe(recogniser, [np.zeros(0, np.float32)]) == [NOTHING] == [Transcript("", ())]
    assert recogniser.heard == [] and not (tmp_path / "t").exists()
    assert store.transcribe(recogniser, []) == []


def test_an_interruption_loses_no_finished_group(tmp_path: Path) -> None:
    lengths = list(range(100, 100 + 2 * GROUP))
    store = TranscriptStore(tmp_path / "t")
    with pytest.raises(KeyboardInterrupt):
        store.transcribe(FakeRecogniser(gives_up_at=lengths[-1]), waves(*lengths))
    recogniser = FakeRecogniser()
    texts = [t.text for t in TranscriptStore(tmp_path / "t").transcribe(recogniser, waves(*lengths))]
    assert recogniser.heard == lengths[GROUP:]
    assert texts == [f"né{n} fake" for n in lengths]


@pytest.mark.parametrize("lost", [1, 2, 30])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "t"
    TranscriptStore(path).transcribe(FakeRecogniser(), waves(100, 200))
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    recogniser = FakeRecogniser()
    store = TranscriptStore(path)
    assert len(store) == 1
    assert path.read_bytes() == whole[:-lost]  # reading alone changes nothing
    store.transcribe(recogniser, waves(200, 100))
    assert recogniser.heard == [200]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b'{"audio": "a", "recogniser": "b", "text": "c"}', b"\xff", b""]
    + [b'{"audio": "a", "recogniser": "b", "text": "c", "words": [["c", 1]]}']
    + [b'{"audio": [], "recogniser": "b", "text": "c", "words": null}', b"[" * 100000],
)
def test_a_broken_line_is_an_error_and_nothing_is_lost(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "t"
    TranscriptStore(path).transcribe(FakeRecogniser(), waves(100, 200))
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, second, b""]))
    content = path.read_bytes()
    with pytest.raises(ValueError, match="t, line 2: not a stored transcript"):
        TranscriptStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.array([0.0, np.nan], np.float32), "waveform 1 .* finite samples.*: sample 1 is nan"),
        (np.array([np.inf], np.float32), "waveform 1 .* sample 0 is inf"),
        (np.zeros((2, 3), np.float32), r"waveform 1 must have the shape \(samples,\), got \(2, 3\)"),
    ],
)
def test_unusable_waveforms_are_refused_before_any_is_transcribed(
    tmp_path: Path, wave: np.ndarray, message: str
) -> None:
    recogniser = FakeRecogniser()
    with pytest.raises(ValueError, match=message):
        TranscriptStore(tmp_path / "t").transcribe(recogniser, [*waves(100), wave])
    assert recogniser.heard == [] and not (tmp_path / "t").exists()


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path)):
        TranscriptStore(tmp_path)
