"""Filterbank features and CMVN, against a reference and as streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nast_s2x.errors import AudioError, NastError
from nast_s2x.frontend.cmvn import CmvnAccumulator, GlobalCmvn
from nast_s2x.frontend.fbank import StreamingFbank, fbank, num_frames
from nast_s2x.frontend.resampling import StreamResampler

REFERENCE = Path(__file__).parent / "fixtures" / "parity" / "fbank_torchaudio.npz"


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def test_equals_the_reference() -> None:
    with np.load(REFERENCE) as data:
        features = fbank(data["waveform"], int(data["sample_rate"]))
        error = np.abs(features.numpy() - data["fbank"])
    assert features.dtype == torch.float32
    assert error.max() <= 5e-3
    assert np.quantile(error, 0.999) <= 5e-4


def test_equals_torchaudio_where_it_works() -> None:
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError):
        pytest.skip("torchaudio does not import here")
    samples = noise(16000)
    expected = kaldi.fbank(torch.from_numpy(samples)[None] * 32768, num_mel_bins=80, sample_frequency=16000, dither=0.0)
    assert (fbank(samples) - expected).abs().max() <= 5e-3


def test_silence_is_the_floor() -> None:
    assert torch.allclose(fbank(np.zeros(1600)), torch.tensor(np.log(np.finfo(np.float32).eps)), atol=1e-5)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (401, 1), (559, 1), (560, 2)])
def test_number_of_frames(samples: int, frames: int) -> None:
    assert num_frames(samples) == frames
    assert fbank(noise(samples)).shape == (frames, 80)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 401, 15999, 40000])
def test_stream_equals_the_whole(samples: int) -> None:
    waveform, rng = noise(samples), np.random.default_rng(samples)
    whole = fbank(waveform)
    for pieces in (1, 3, 50):
        cuts = np.sort(rng.integers(0, samples + 1, pieces))
        stream = StreamingFbank()
        frames = [stream.push(piece) for piece in np.split(waveform, cuts)]
        frames.append(stream.push(np.zeros(0), final=True))
        assert torch.equal(torch.cat(frames), whole)


def test_frames_come_as_soon_as_they_are_complete() -> None:
    stream, pushed = StreamingFbank(), 0
    for length in (1, 398, 1, 159, 1, 500, 0, 1000):
        stream.push(noise(length))
        pushed += length
        assert stream.frames == num_frames(pushed)


def test_resampled_stream_equals_the_whole() -> None:
    waveform = noise(20000)
    resampler, stream = StreamResampler(44100), StreamingFbank()
    frames = [stream.push(resampler.push(piece)) for piece in np.split(waveform, [3, 1000, 1001, 9000])]
    frames.append(stream.push(resampler.push(np.zeros(0), final=True), final=True))
    assert torch.equal(torch.cat(frames), fbank(waveform, 44100))


def test_consumed_frames_are_freed() -> None:
    stream = StreamingFbank()
    stream.push(noise(16000))
    # The extractor refuses frames that it no longer holds.
    with pytest.raises(Exception, match="already removed"):
        stream._fbank.get_frame(0)


def test_stream_refuses() -> None:
    ended = StreamingFbank()
    ended.push(noise(500), final=True)
    with pytest.raises(ValueError, match="has ended"):
        ended.push(noise(1))
    with pytest.raises(AudioError, match="NaN"):
        StreamingFbank().push([float("inf")])
    with pytest.raises(ValueError, match="negative: -1"):
        num_frames(-1)


def test_a_refused_piece_leaves_the_stream_as_it_was() -> None:
    stream = StreamingFbank()
    with pytest.raises(AudioError, match="NaN"):
        stream.push([float("nan")], final=True)
    assert torch.equal(stream.push(noise(800), final=True), fbank(noise(800)))


def test_cmvn_normalises_what_it_has_seen(tmp_path: Path) -> None:
    features = np.random.default_rng(1).normal(3.0, 2.0, (500, 80)).astype(np.float32)
    parts = CmvnAccumulator().add(features[:100])
    rest = CmvnAccumulator().add(torch.from_numpy(features[100:]))
    cmvn = parts.add_sums(rest.frames, rest.sums).result()
    np.testing.assert_allclose(cmvn.mean, features.mean(0), atol=1e-5)
    np.testing.assert_allclose(cmvn.std, features.std(0), atol=1e-5)
    cmvn.save(tmp_path / "g.npz")
    loaded = GlobalCmvn.load(tmp_path / "g.npz")
    normal = loaded(features)
    assert normal.dtype == np.float32 and abs(normal.mean()) < 1e-4 and abs(normal.std() - 1) < 1e-4
    batch = loaded(torch.from_numpy(features).view(5, 100, 80))
    np.testing.assert_allclose(batch.reshape(500, 80).numpy(), normal, atol=1e-6)


def test_cmvn_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        CmvnAccumulator().result()
    with pytest.raises(ValueError, match="every std positive"):
        GlobalCmvn(np.zeros(80), np.zeros(80))
    with pytest.raises(ValueError, match="have 40 bins"):
        GlobalCmvn(np.zeros(80), np.ones(80))(np.zeros((3, 40), np.float32))
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        GlobalCmvn.load(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"bad\.npz: not a CMVN file"):
        GlobalCmvn.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "half.npz", mean=np.zeros(80))
    (tmp_path / "empty.npz").touch()
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(80))
    np.savez_compressed(tmp_path / "damaged.npz", mean=np.zeros(800), std=np.ones(800))
    content = bytearray((tmp_path / "damaged.npz").read_bytes())
    content[60:70] = b"\xff" * 10
    (tmp_path / "damaged.npz").write_bytes(content)
    for name in ("half", "empty", "array", "damaged"):
        with pytest.raises(NastError, match=rf"{name}\.npz: not a CMVN file"):
            GlobalCmvn.load(tmp_path / f"{name}.npz")


def test_a_cmvn_file_that_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmvn = GlobalCmvn(np.zeros(80), np.ones(80))
    cmvn.save(tmp_path / "g.npz")
    before = (tmp_path / "g.npz").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nast_s2x.frontend.cmvn.np.save", full)
    with pytest.raises(OSError, match="No space left on device"):
        cmvn.save(tmp_path / "g.npz")
    assert (tmp_path / "g.npz").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_constant_bin_does_not_divide_by_zero() -> None:
    cmvn = CmvnAccumulator().add(np.full((10, 80), 5.0, np.float32)).result()
    assert np.isfinite(cmvn(np.full((2, 80), 5.0, np.float32))).all()
