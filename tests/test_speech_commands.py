"""The commands translate --speech and generate --speech, on a random system and recordings of all kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from random_system import NUM_UNITS, make_bundle, make_signal, make_voice

from nast_s2x.cli.main import main
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.audio import load_audio
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import translate_samples
from nast_s2x.inference.playback import Playback
from nast_s2x.inference.speech_folder import SpeechFolder, file_names
from nast_s2x.inference.streaming import Emission, TranslationStream
from nast_s2x.inference.system import System
from nast_s2x.vocoder.checkpoint import save_vocoder
from nast_s2x.vocoder.streaming import SynthesisWindow

STEP = 1 / 32767  # of 16-bit samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a vocoder, one without, and a recording of each kind."""
    folder = tmp_path_factory.mktemp("speech")
    save_bundle(make_bundle(folder / "system", voice=True), folder / "bundle")
    save_bundle(make_bundle(folder / "system"), folder / "mute")
    signal = make_signal(1.2, seed=1)
    soundfile.write(folder / "plain.wav", signal, 16000, subtype="FLOAT")
    soundfile.write(folder / "eight.wav", make_signal(0.8, seed=2, rate=8000), 8000, subtype="PCM_U8")
    soundfile.write(folder / "fast.wav", make_signal(0.7, seed=3, rate=96000), 96000, subtype="PCM_24")
    soundfile.write(folder / "two.flac", np.stack([make_signal(0.9, 4, 44100)] * 2, axis=1), 44100)
    soundfile.write(folder / "packed.mp3", make_signal(1.0, seed=5, rate=22050), 22050)
    soundfile.write(folder / "empty.wav", np.zeros(0, np.float32), 16000)
    broken = np.concatenate([signal, make_signal(0.4, seed=6)])
    broken[18000] = np.nan
    soundfile.write(folder / "nan.wav", broken, 16000, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> System:
    return load_system(folder / "bundle")


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def emissions_of(bundle: System, path: Path, chunk_ms: int, lookahead_frames: int = 5) -> list[Emission]:
    samples, rate = soundfile.read(path, dtype="float32")
    synthesis = SynthesisWindow(lookahead_frames)
    translator = TranslationStream(bundle, bundle.policy(chunk_ms), with_speech=True, synthesis=synthesis)
    return translator.push(samples, rate) + translator.push([], final=True)


def played(emissions: list[Emission], buffer_ms: float = 0.0) -> Playback:
    playback = Playback(buffer_ms)
    for emission in emissions:
        playback.add(emission.source_ms, emission.waveform)
    return playback


def test_translate_writes_the_playback(
    folder: Path, bundle: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--speech", "-o", tmp_path / "out", "--chunk-ms", 160, "--json"]
    assert run("translate", folder / "plain.wav", "-m", folder / "bundle", *flags) == 0
    *rows, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    emissions = emissions_of(bundle, folder / "plain.wav", 160)
    playback = played(emissions)
    assert [row["samples"] for row in rows] == [len(emission.waveform) for emission in emissions]
    assert [row["available_ms"] for row in rows] == [row["source_ms"] for row in rows]
    starts = [row["start_ms"] for row in rows if row["samples"]]
    assert starts == pytest.approx([start for start, _ in playback.pieces], abs=1e-3)
    assert all(row["start_ms"] is None for row in rows if not row["samples"])

    speech = last["speech"]
    assert last["audio"] == str(folder / "plain.wav") and speech["source_seconds"] == 1.2
    for key, value in playback.statistics().items():
        assert speech[key] == pytest.approx(value, abs=1e-3)
    assert speech["gaps"] >= 0 and speech["start_ms"] >= 335  # a chunk and its look-ahead
    alone, rate = soundfile.read(speech["wav"], dtype="float32")
    assert rate == 16000 and speech["wav"] == str(tmp_path / "out" / "plain.wav")
    assert alone.shape == playback.speech().shape and np.abs(alone - playback.speech()).max() <= STEP
    both, rate = soundfile.read(speech["stereo"], dtype="float32")
    source = load_audio(folder / "plain.wav")
    assert rate == 16000 and np.abs(both[: len(source), 0] - source).max() <= STEP
    assert np.abs(both[: len(playback.mix()), 1] - playback.mix()).max() <= STEP and len(both) >= len(source)
    first = round(speech["start_ms"] * 16)
    assert not both[:first, 1].any() and both[first : first + 400, 1].any()
    text = Path(speech["srt"]).read_text()
    words = [emission.text for emission in emissions if emission.text]
    assert text.startswith("1\n00:00:00,") and all(word in text for word in " ".join(words).split())


def test_buffer_lookahead_and_people(
    folder: Path, bundle: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--speech", "--output", tmp_path, "--playback-buffer-ms", 250, "--synthesis-lookahead", 0]
    assert run("translate", folder / "two.flac", "-m", folder / "bundle", *flags) == 0
    out = capsys.readouterr().out
    emissions = emissions_of(bundle, folder / "two.flac", 320, lookahead_frames=0)
    playback = played(emissions, buffer_ms=250)
    alone, _ = soundfile.read(tmp_path / "two.wav", dtype="float32")
    assert alone.shape == playback.speech().shape and np.abs(alone - playback.speech()).max() <= STEP
    assert f"speech: {len(alone) / 16000:.2f} s, from " in out and "(the source ends at 0.90 s)" in out
    start = float(out.split("from ")[1].split(" s")[0])
    assert start == pytest.approx(playback.start_ms / 1000, abs=0.011)  # resampled: times to 10 ms
    for name in ("two.wav", "two.stereo.wav", "two.srt"):
        assert str(tmp_path / name) in out and (tmp_path / name).is_file()


def test_computing_time_makes_pieces_later(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--speech", "-o", tmp_path, "--chunk-ms", 160, "--json", "--computation-aware"]
    assert run("translate", folder / "plain.wav", "-m", folder / "bundle", *flags) == 0
    *rows, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row["available_ms"] > row["source_ms"] for row in rows)
    times = [row["available_ms"] for row in rows]
    assert times == sorted(times) and times[-1] <= 1200 + rows[-1]["compute_ms"] + 1e-3
    assert last["speech"]["start_ms"] >= next(row for row in rows if row["samples"])["available_ms"]


def test_translate_all_kinds_of_recordings(
    folder: Path, bundle: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["eight.wav", "fast.wav", "packed.mp3", "empty.wav", "nan.wav", "gone.wav", "plain.wav"]
    files = [folder / name for name in names]
    assert run("translate", *files, "-m", folder / "bundle", "--speech", "-o", tmp_path, "--json") == 1
    out, err = capsys.readouterr()
    summaries = {Path(row["audio"]).name: row["speech"] for row in map(json.loads, out.splitlines()) if "speech" in row}
    assert list(summaries) == ["eight.wav", "fast.wav", "packed.mp3", "empty.wav", "nan.wav", "plain.wav"]
    for name in ("eight.wav", "fast.wav", "packed.mp3", "plain.wav"):
        said = np.concatenate([emission.waveform for emission in emissions_of(bundle, folder / name, 320)])
        written, rate = soundfile.read(summaries[name]["wav"], dtype="float32")
        assert rate == 16000 and len(said) > 0 and written.shape == said.shape
        assert np.abs(written - said).max() <= STEP
    assert summaries["empty.wav"]["seconds"] == 0 and summaries["empty.wav"]["start_ms"] is None
    assert soundfile.info(summaries["empty.wav"]["wav"]).frames == 0
    assert Path(summaries["empty.wav"]["srt"]).read_text() == ""
    # The part before the damage is translated, and its speech is kept.
    assert "nan.wav: samples must be finite" in err and summaries["nan.wav"]["source_seconds"] == 1.12
    assert summaries["nan.wav"]["seconds"] > 0
    assert "gone.wav: no such audio file" in err and not (tmp_path / "gone.wav").exists()


def test_equal_names_do_not_overwrite_each_other(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "eight.flac", make_signal(0.5, seed=9), 16000)
    files = [folder / "eight.wav", tmp_path / "a" / "eight.flac"]
    assert run("translate", *files, "-m", folder / "bundle", "--speech", "-o", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").glob("*.srt")} == {"eight.srt", "eight-2.srt"}


def test_names_of_files() -> None:
    names = ["a", "a", "A", "b/c d", "..", "", "x.1", "été", "a-2"]
    assert file_names(names) == ["a", "a-2", "A-3", "b_c_d", "_", "_-2", "x.1", "été", "a-2-2"]
    assert file_names(["a"] * 20000)[-1] == "a-20000"  # in linear time


def test_recordings_are_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "plain.wav").read_bytes()
    assert run("translate", folder / "plain.wav", "-m", folder / "bundle", "--speech", "-o", folder) == 1
    assert "plain.wav is one of the recordings: name another folder with --output" in capsys.readouterr().err
    assert run("generate", folder / "plain.wav", "-m", folder / "bundle", "--speech", "--output-wav", folder) == 1
    assert "name another folder with --output-wav" in capsys.readouterr().err
    assert (folder / "plain.wav").read_bytes() == before


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("translate", ["--output", "x"], "--output needs --speech"),
        ("translate", ["--playback-buffer-ms", "5"], "--playback-buffer-ms needs --speech"),
        ("translate", ["--computation-aware"], "--computation-aware needs --speech"),
        ("translate", ["--vocoder", "x"], "--vocoder needs --speech"),
        ("translate", ["--synthesis-lookahead", "0"], "--synthesis-lookahead needs --speech"),
        ("generate", ["--output-wav", "x"], "--output-wav needs --speech"),
        ("translate", ["--speech", "--playback-buffer-ms", "-5"], "0 ms or more, got -5"),
        ("translate", ["--speech", "--synthesis-lookahead", "-1"], "lookahead_frames cannot be negative"),
        ("translate", ["--speech", "--vocoder", "nowhere"], "nowhere"),
        ("translate", ["--speech", "--vocoder", "{small}"], f"the model has {NUM_UNITS} units, the vocoder 5"),
        ("generate", ["--speech", "--vocoder", "{other}"], "the vocoder's of feed"),
        ("translate", ["--speech", "-m", "{mute}"], "this system has no vocoder: give one with --vocoder"),
        ("generate", ["--speech", "-m", "{mute}"], "this system has no vocoder"),
    ],
)
def test_wrong_usage(
    folder: Path,
    tmp_path: Path,
    command: str,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    voices = {"small": make_voice(5), "other": make_voice(unit_hash="feed")}
    for name, voice in voices.items():
        if f"{{{name}}}" in flags:
            save_vocoder(voice, tmp_path / "voices" / name)
    filled = [flag.format(small="voices/small", other="voices/other", mute=folder / "mute") for flag in flags]
    assert run(command, folder / "plain.wav", "-m", folder / "bundle", *filled) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "translated").exists()


def test_a_vocoder_for_a_system_without_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice = save_vocoder(make_voice(seed=3), tmp_path / "voice")
    flags = ["--speech", "--vocoder", voice, "-o", tmp_path / "out"]
    assert run("translate", folder / "plain.wav", "-m", folder / "mute", *flags) == 0
    said, _ = soundfile.read(tmp_path / "out" / "plain.wav", dtype="float32")
    expected = emissions_of(load_system(folder / "mute").with_vocoder(voice), folder / "plain.wav", 320)
    assert np.abs(said - np.concatenate([emission.waveform for emission in expected])).max() <= STEP


def read_list(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Path:
    names = ["plain.wav", "eight.wav", "fast.wav", "two.flac", "packed.mp3", "empty.wav", "nan.wav"]
    rows = [f"row/{number % 6}\t{name}\tthe house {number}\n" for number, name in enumerate(names)]
    (folder / "manifest.tsv").write_text("id\taudio\ttgt_text\n" + "".join(rows))
    return folder / "manifest.tsv"


def test_generate_writes_the_speech_of_a_corpus(
    folder: Path, bundle: System, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--speech", "--output-wav", tmp_path / "all", "--json", "-", "--batch-size", 4]
    assert run("generate", "--manifest", manifest, "-m", folder / "bundle", *flags) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert "left out: row/0: " in err and "NaN" in err and "wrote 6 sound files" in err
    listed = read_list(tmp_path / "all" / "speech.tsv")
    assert [row["id"] for row in listed] == [f"row/{number}" for number in range(6)]
    for row, entry in zip(rows[:6], listed):
        samples = load_audio(folder / row["audio"])
        expected = translate_samples(bundle, samples, policy=bundle.policy("offline"), with_speech=True)
        said, rate = soundfile.read(tmp_path / "all" / entry["audio"], dtype="float32")
        assert row["wav"] == str(tmp_path / "all" / entry["audio"]) and rate == 16000
        assert str(len(said)) == entry["n_samples"] and len(said) == len(expected.waveform)
        assert np.abs(said - expected.waveform).max(initial=0) <= STEP + 1e-5
        assert (entry["text"], entry["tgt_text"]) == (row["text"], row["reference"]) and row["text"] == expected.text
        assert row["spoken_seconds"] == pytest.approx(len(said) / 16000, abs=1e-3)
    assert [row["audio"] for row in listed[:2]] == ["row_0.wav", "row_1.wav"] and listed[5]["n_samples"] == "0"
    assert "wav" not in rows[6] and not (tmp_path / "all" / "row_0-2.wav").exists()

    # The list is a manifest that generate reads again.
    assert run("generate", "--manifest", tmp_path / "all" / "speech.tsv", "-m", folder / "mute", "--json", "-") == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["reference"] for row in again] == [f"the house {number}" for number in range(6)]


def test_generate_in_shards_and_chunks(
    folder: Path, bundle: System, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--manifest", manifest, "-m", folder / "bundle", "--speech", "--output-wav", tmp_path]
    for shard in range(2):
        flags = ["--num-shards", 2, "--shard-id", shard, "--chunk-ms", 320, "--synthesis-lookahead", 2, "--no-units"]
        assert run("generate", *common, *flags) == 1 - shard
    assert "Unit-" not in capsys.readouterr().out
    lists = [read_list(tmp_path / f"speech.{shard}-of-2.tsv") for shard in range(2)]
    assert sorted(row["audio"] for rows in lists for row in rows) == [f"row_{number}.wav" for number in range(6)]
    said, _ = soundfile.read(tmp_path / "row_3.wav", dtype="float32")
    streamed = emissions_of(bundle, folder / "two.flac", 320, lookahead_frames=2)
    assert np.abs(said - np.concatenate([emission.waveform for emission in streamed])).max() <= STEP


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must have a name in UTF-8"):
        SpeechFolder(tmp_path / "d\udce9", [])
