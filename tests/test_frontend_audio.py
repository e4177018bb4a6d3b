"""Audio files and the stream resampler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from nast_s2x.frontend.audio import AudioError, StreamResampler, as_mono, declared_samples, load_audio


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
    assert abs(declared_samples(tmp_path / name) - 8000) <= (1200 if name.endswith("mp3") else 0)
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
        "folder.wav": "not a file",
        "missing.wav": "no such audio file",
    }
    for name, reason in reasons.items():
        with pytest.raises(AudioError) as error:
            load_audio(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ") and reason in str(error.value)


def test_header_of_an_unusable_file(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no sound")
    for name in ("text.wav", "missing.wav"):
        with pytest.raises(AudioError, match=rf"{name}: cannot be read as audio"):
            declared_samples(tmp_path / name)


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
    with pytest.raises(AudioError, match="positive"):
        StreamResampler(0)
    with pytest.raises(AudioError, match="NaN"):
        StreamResampler(16000).push([0.0, float("nan")])
