"""Audio files and the stream resampler."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from nast_s2x.errors import AudioError
from nast_s2x.frontend.audio import audio_pieces, load_audio, read_header, write_wav
from nast_s2x.frontend.resampling import StreamResampler
from nast_s2x.frontend.samples import as_mono


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "rate", "subtype", "error"),
    [
        ("a.wav", 16000, "PCM_16", 1e-4),
        ("a.wav", 16000, "PCM_U8", 1e-2),
        ("a.wav", 16000, "FLOAT", 0.0),
        ("a.flac", 16000, None, 1e-4),
        ("a.wav", 8000, "PCM_16", 1e-3),
        ("a.wav", 44100, "PCM_24", 1e-3),
        ("a.wav", 96000, "PCM_16", 1e-3),
        ("a.ogg", 16000, None, 5e-2),
        ("a.mp3", 44100, None, 5e-2),
    ],
)
def test_formats_and_rates(tmp_path: Path, name: str, rate: int, subtype: str | None, error: float) -> None:
    soundfile.write(tmp_path / name, tone(rate), rate, subtype=subtype)
    samples = load_audio(tmp_path / name)
    assert samples.dtype == np.float32
    assert len(samples) == 8000
    # The header of an mp3 counts its padding.
    declared, declared_rate = read_header(tmp_path / name)
    assert declared_rate == rate and abs(declared - rate // 2) <= (3400 if name.endswith("mp3") else 0)
    # The ends are left out: filters ring there.
    assert np.abs(samples - tone(16000))[400:-400].max() <= error


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = tone(16000)
    soundfile.write(tmp_path / "s.wav", np.stack([left, 0.5 * left], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "s.wav"), 0.75 * left, atol=1e-7)


def test_part_of_a_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav", start=100, frames=50), tone(16000)[100:150])
    with pytest.raises(AudioError, match="starts at sample 9000, the file has 8000"):
        load_audio(tmp_path / "a.wav", start=9000)


def test_valid_file_without_samples_is_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "e.wav", np.zeros(0, np.float32), 44100)
    assert load_audio(tmp_path / "e.wav").shape == (0,)


def test_unusable_files_are_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan, 0.0], np.float32), 16000, subtype="FLOAT")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    (tmp_path / "text.mp3").write_text("this is no sound")
    (tmp_path / "folder.wav").mkdir()
    reasons = {
        "nan.wav": "NaN",
        "empty.wav": "the file is empty",
        "broken.flac": "cannot be read as audio",
        "text.mp3": "cannot be read as audio",
        "folder.wav": "is a folder, not a file",
        "missing.wav": "no such audio file",
    }
    for name, reason in reasons.items():
        with pytest.raises(AudioError) as error:
            load_audio(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ") and reason in str(error.value)


def test_header_of_an_unusable_file(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no sound")
    for name, reason in (("text.wav", "cannot be read as audio"), ("missing.wav", "no such audio file")):
        with pytest.raises(AudioError, match=rf"{name}: {reason}"):
            read_header(tmp_path / name)


def test_integer_samples_are_scaled() -> None:
    np.testing.assert_array_equal(as_mono(np.array([-32768, 16384], np.int16)), np.float32([-1.0, 0.5]))
    np.testing.assert_array_equal(as_mono([0, 1, -1]), np.float32([0, 1, -1]))
    with pytest.raises(AudioError, match=r"\(1, 2, 3\)"):
        as_mono(np.zeros((1, 2, 3)))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_resampled_stream_equals_the_whole(rate: int) -> None:
    rng = np.random.default_rng(rate)
    samples = rng.standard_normal(rate // 2 + 7).astype(np.float32) * 0.1
    whole = StreamResampler(rate).push(samples, final=True)
    np.testing.assert_array_equal(whole, soxr.resample(samples, rate, 16000) if rate != 16000 else samples)
    for _ in range(3):
        cuts = np.sort(rng.integers(0, len(samples), 30))
        stream = StreamResampler(rate)
        pieces = [stream.push(piece) for piece in np.split(samples, cuts)]
        pieces.append(stream.push(np.zeros(0), final=True))
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_resampler_takes_next_to_nothing(length: int) -> None:
    for rate in (8000, 16000, 48000):
        assert len(StreamResampler(rate).push(np.ones(length), final=True)) in (
            length * 16000 // rate,
            -(-length * 16000 // rate),
        )


def test_resampler_mixes_down_and_refuses() -> None:
    stereo = np.stack([tone(48000), tone(48000)], axis=1)
    np.testing.assert_array_equal(
        StreamResampler(48000).push(stereo, final=True), StreamResampler(48000).push(tone(48000), final=True)
    )
    ended = StreamResampler(48000)
    ended.push(np.zeros(3), final=True)
    with pytest.raises(ValueError, match="has ended"):
        ended.push(np.zeros(3))
    with pytest.raises(AudioError, match="whole number of Hz from 4000 to 768000"):
        StreamResampler(0)
    with pytest.raises(AudioError, match="NaN"):
        StreamResampler(16000).push([0.0, float("nan")])


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(4, np.uint16),
        np.zeros(4, np.int64),
        np.zeros(4, bool),
        np.zeros(4, complex),
        np.zeros(4, "datetime64[s]"),
        np.array([object()]),
        {"a": 1},
        [[1.0, 2.0], [3.0]],
        torch.zeros(4, requires_grad=True),
    ],
    ids=lambda samples: str(getattr(samples, "dtype", type(samples).__name__)),
)
def test_other_types_are_no_samples(samples: object) -> None:
    with pytest.raises(AudioError, match="samples must be"):
        as_mono(samples)


def test_unsigned_bytes_are_pcm_with_zero_at_128() -> None:
    assert as_mono(np.array([0, 128, 255], np.uint8)).tolist() == [-1.0, 0.0, 127 / 128]
    assert as_mono([0, 1, -1]).tolist() == [0.0, 1.0, -1.0]


def test_a_wrong_scale_is_refused() -> None:
    assert as_mono([1e4, -1e4]).tolist() == [1e4, -1e4]
    for value in (1.1e4, -3e38):
        with pytest.raises(AudioError, match="in -1..1, but some exceed 10000"):
            as_mono([0.0, value])


@pytest.mark.parametrize("rate", [0, -8000, 8000.5, 3999, 768_001, True, None, float("inf"), 1e12, "16000"])
def test_rates_out_of_range(rate: object) -> None:
    with pytest.raises(AudioError, match="whole number of Hz from 4000 to 768000"):
        StreamResampler(rate)


def test_the_record_of_times_does_not_change_the_samples() -> None:
    samples = tone(44100)
    plain, timed = StreamResampler(44100), StreamResampler(44100, with_times=True)
    cuts = range(0, len(samples), 333)
    pieces = [timed.push(samples[start : start + 333], final=start == cuts[-1]) for start in cuts]
    assert np.array_equal(np.concatenate(pieces), plain.push(samples, final=True))
    assert timed.source_ms == 1000 * len(samples) / 44100 and 0 < timed.source_ms_of(160) <= 60


def test_special_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.wav")
    for path, message in ((tmp_path / "x.wav", "not a regular file"), (tmp_path, "is a folder, not a file")):
        for read in (load_audio, read_header, lambda path: list(audio_pieces(path, 40))):
            with pytest.raises(AudioError, match=message):
                read(path)


def test_headers_are_compared_before_anything_is_allocated(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.flac", np.zeros(1000), 16000)
    content = bytearray((tmp_path / "x.flac").read_bytes())
    content[21] = (content[21] & 0xF0) | 0x0F  # the upper bits of the number of samples, 36 bits in all
    content[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "x.flac").write_bytes(content)
    slow = bytearray(wav_bytes(16000))
    slow[24:28] = (1).to_bytes(4, "little")
    (tmp_path / "slow.wav").write_bytes(slow)
    for name, message in (("x.flac", "declares 1193 hours; at most 24"), ("slow.wav", "from 4000 to 768000")):
        for read in (load_audio, read_header, lambda path: list(audio_pieces(path, 40))):
            with pytest.raises(AudioError, match=message):
                read(tmp_path / name)


def wav_bytes(rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100), rate, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_pieces_are_the_whole(tmp_path: Path, name: str) -> None:
    samples = np.stack([tone(22050), -tone(22050)], axis=1)
    soundfile.write(tmp_path / name, samples, 22050)
    whole, _ = soundfile.read(tmp_path / name, dtype="float32", always_2d=True)
    pieces = [piece for piece, rate in audio_pieces(tmp_path / name, 33) if rate == 22050]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)  # MP3 decoders round by block
    assert {len(piece) for piece in pieces[:-1]} == {728}


@pytest.mark.parametrize("piece_ms", [0, -1, float("nan"), float("inf")])
def test_lengths_of_pieces(tmp_path: Path, piece_ms: float) -> None:
    with pytest.raises(AudioError, match="a piece must have a positive length"):
        list(audio_pieces(tmp_path / "a.wav", piece_ms))


def test_a_sound_file_that_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "a.wav", tone(16000))
    before = (tmp_path / "a.wav").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_wav(tmp_path / "a.wav", np.zeros(10))
    assert (tmp_path / "a.wav").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
