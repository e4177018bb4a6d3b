"""Noise floor and band limit: the same sound in any kind of file gives the same normalised features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from nast_s2x.cli.main import main
from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.data_folder import DataFolder
from nast_s2x.corpus.prepare import PrepareOptions, prepare
from nast_s2x.errors import ConfigError, NastError
from nast_s2x.frontend.cmvn import CmvnAccumulator, GlobalCmvn
from nast_s2x.frontend.fbank import fbank
from nast_s2x.frontend.noise_floor import EMPTY, Narrowband, bins_below, noise_floor

RECORDING = Path(__file__).parent.parent / "examples/espeak_fr_en/recordings/test_00002.flac"


def test_the_floor_is_that_of_white_noise() -> None:
    noise = np.random.default_rng(0).standard_normal(16000 * 60) * 0.01  # -40 dB
    measured = np.log(np.exp(fbank(noise).double().numpy()).mean(0))
    np.testing.assert_allclose(noise_floor(-40.0)[2:], measured[2:], atol=0.06)
    np.testing.assert_allclose(noise_floor(-40.0), measured, atol=0.2)  # the lowest bins lose what DC removal takes
    assert fbank(np.zeros(400))[0, 5].item() == pytest.approx(EMPTY, abs=1e-3)
    with pytest.raises(ConfigError, match=r"-120\.\.-20 dB, but is 3"):
        noise_floor(3.0)


def test_bins_of_a_band() -> None:
    assert bins_below(8000) == 80 and bins_below(22050) == 80
    tone = 0.5 * np.sin(2 * np.pi * 3900 * np.arange(16000) / 16000)
    loud = int(fbank(tone)[20].argmax())
    assert loud >= bins_below(4000) > loud - 5


def versions(folder: Path) -> dict[str, Path]:
    """One recording as a file of 8 kHz, and the same sound in files of other rates and formats."""
    samples, rate = soundfile.read(RECORDING)
    narrow = soxr.resample(samples, rate, 8000)
    paths = {}
    for name, new_rate, subtype, ending in (
        ("8k", 8000, "FLOAT", "wav"), ("8k_16bit", 8000, "PCM_16", "wav"), ("16k_16bit", 16000, "PCM_16", "wav"),
        ("16k_float", 16000, "FLOAT", "wav"), ("44k", 44100, "PCM_16", "wav"), ("44k_flac", 44100, "PCM_16", "flac"),
        ("44k_mp3", 44100, "MPEG_LAYER_III", "mp3"),
    ):  # fmt: skip
        paths[name] = folder / f"{name}.{ending}"
        resampled = narrow if new_rate == 8000 else soxr.resample(narrow, 8000, new_rate)
        soundfile.write(paths[name], resampled, new_rate, subtype=subtype)
    paths["wideband"] = RECORDING
    return paths


def test_one_sound_in_any_file(tmp_path: Path) -> None:
    """Without the floor the empty band of a 16-bit file is standard deviations away from the narrow recording's."""
    features = {name: AudioRef(path).features() for name, path in versions(tmp_path).items()}
    accumulator = CmvnAccumulator(floor=noise_floor(-80.0)).add(features["8k"])
    cmvn = accumulator.result(band_hz=4000.0)
    plain = CmvnAccumulator().add(features["8k"]).result()
    frames = min(map(len, features.values()))
    expected = cmvn(features["8k"])[:frames]
    assert np.abs(plain(features["16k_16bit"]) - plain(features["8k"]))[:, 65:].mean() > 1
    for name, values in features.items():
        difference = np.abs(cmvn(values)[:frames] - expected)
        assert difference[:, bins_below(4000) :].max() == 0, name
        limit = 0.1 if name == "44k_mp3" else 0.005  # a lossy format changes the sound itself
        assert difference.mean() < limit, (name, difference.mean())


def test_digital_silence_is_noise() -> None:
    cmvn = GlobalCmvn(np.zeros(80), np.ones(80), noise_floor(-80.0))
    silent = cmvn(fbank(np.zeros(8000)))
    np.testing.assert_allclose(silent.numpy(), np.broadcast_to(noise_floor(-80.0), silent.shape), atol=1e-5)


def test_numpy_torch_and_files_agree(tmp_path: Path) -> None:
    features = fbank(np.random.default_rng(1).standard_normal(8000) * 1e-4)
    cmvn = CmvnAccumulator(floor=noise_floor(-70.0)).add(features).result(4000.0)
    cmvn.save(tmp_path / "gcmvn.npz")
    loaded = GlobalCmvn.load(tmp_path / "gcmvn.npz")
    assert loaded.band_hz == 4000.0 and loaded.filled == bins_below(4000)
    expected = cmvn(features)
    torch.testing.assert_close(loaded(features), expected)
    np.testing.assert_allclose(loaded(features.numpy()), expected.numpy(), atol=1e-4)
    before = features.clone()
    loaded(features)
    assert torch.equal(features, before)
    with pytest.raises(NastError, match="needs a noise floor"):
        GlobalCmvn(np.zeros(80), np.ones(80), band_hz=4000.0)


def test_narrowband_limits_a_share() -> None:
    features = np.zeros((7, 80), dtype=np.float32)
    limit = Narrowband(4000.0, 0.3)
    limited = [limit(features, np.random.default_rng(seed)) for seed in range(200)]
    number = sum(values[0, -1] == np.float32(EMPTY) for values in limited)
    assert 40 < number < 80 and features.sum() == 0
    assert all((values[:, : bins_below(4000)] == 0).all() for values in limited)
    with pytest.raises(ConfigError, match="share in 0..1"):
        Narrowband(4000.0, 2.0)


def make_corpus(folder: Path, rates: list[int]) -> Path:
    lines = ["id\taudio\tsrc_text\ttgt_text\tsplit"]
    for index, rate in enumerate(rates):
        soundfile.write(folder / f"{index}.wav", np.random.default_rng(index).standard_normal(rate) * 0.1, rate)
        lines.append(f"{index}\t{index}.wav\tun chat noir {index}\ta black cat {index}\t{'train' if index else 'dev'}")
    (folder / "m.tsv").write_text("\n".join(lines) + "\n")
    return folder / "m.tsv"


def test_prepare_reports_rates_and_keeps_the_band(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_corpus(tmp_path, [16000, 8000, 8000, 8000])
    arguments = ["prepare", str(manifest), "--vocab-size", "30", "--jobs", "1", "--quiet", "--output"]
    assert main([*arguments, str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    assert "8000 Hz (3 rows), 16000 Hz (1 rows)" in shown and "end at 4000 Hz" in shown
    cmvn = GlobalCmvn.load(DataFolder.load(tmp_path / "a").cmvn_path or "")
    assert cmvn.band_hz == 4000.0 and cmvn.floor is not None
    assert main([*arguments, str(tmp_path / "b"), "--noise-floor", "off"]) == 0
    assert GlobalCmvn.load(tmp_path / "b" / "gcmvn.npz").floor is None
    assert main([*arguments, str(tmp_path / "c"), "--noise-floor", "x"]) == 1
    assert "a level in dB or off, not 'x'" in capsys.readouterr().err


def test_prepare_with_recordings_of_both_bands(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path, [16000, 8000, 16000, 44100])
    report = prepare(manifest, tmp_path / "a", PrepareOptions(vocab_size=30), jobs=1)
    assert any("with --narrowband 0.3" in note for note in report.notes)
    report = prepare(manifest, tmp_path / "b", PrepareOptions(vocab_size=30, narrowband=0.3), jobs=1)
    assert not any("narrowband" in note for note in report.notes)
    folder = DataFolder.load(tmp_path / "b")
    assert folder.narrowband == Narrowband(4000.0, 0.3)
    assert folder.transforms(is_train=True)[0] == "narrowband" and "narrowband" not in folder.transforms(is_train=False)
    with pytest.raises(ConfigError, match="a share in 0..1"):
        PrepareOptions(narrowband=3)
