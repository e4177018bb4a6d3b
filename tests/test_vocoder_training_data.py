"""Input of vocoder training: units manifests, crops of recordings, order of batches, settings."""

from __future__ import annotations

import dataclasses
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from vocoder_data import HASH, NUM_UNITS, edit_row, tones, write_config, write_voice

from nast_s2x.corpus.audio_ref import AudioRef
from nast_s2x.corpus.utterance import Units, Utterance
from nast_s2x.errors import AudioError, ManifestError
from nast_s2x.vocoder.training.data import (
    CropDataset,
    StepBatches,
    check_recordings,
    collate,
    load_recording,
    num_unit_frames,
    read_units_manifest,
    units_of,
)
from nast_s2x.vocoder.training.settings import TrainingSettings, read_configuration

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def row(name: str, audio: Path, units: list[int], durations: list[int]) -> Utterance:
    return Utterance(name, target_audio=AudioRef(audio), units=Units(tuple(units), tuple(durations)))


def recording(folder: Path, units: list[int], durations: list[int], rate: int = 16000, **options: str) -> Utterance:
    path = folder / f"{len(list(folder.iterdir()))}.wav"
    samples = np.repeat(tones(units, durations, extra=0), rate // 16000)
    soundfile.write(path, samples, rate, subtype="FLOAT", **options)
    return row(path.stem, path, units, durations)


def test_manifest_is_read_by_split(tmp_path: Path) -> None:
    manifest = read_units_manifest(write_voice(tmp_path / "v", count=3, dev=1), NUM_UNITS)
    assert [row.split for row in manifest] == ["train", "train", "train", "dev"]
    assert manifest.unit_hash() == HASH
    first = manifest.rows[0]
    units, durations = units_of(first)
    assert first.target_audio == AudioRef(tmp_path / "v/audio/r0.flac")
    assert (durations == 1 + units % 3).all() and num_unit_frames(first) == durations.sum()


def test_manifest_without_splits_or_hash(tmp_path: Path) -> None:
    path = write_voice(tmp_path / "v", count=2, dev=0, unit_hash=None)
    path.write_text(path.read_text("utf-8").replace("split", "set"), encoding="utf-8")
    manifest = read_units_manifest(path, NUM_UNITS)
    assert len(manifest) == 2 and manifest.unit_hash() is None


def test_only_wanted_splits_are_looked_at(tmp_path: Path) -> None:
    path = write_voice(tmp_path / "v", count=2, dev=1)
    edit_row(path, 2, tgt_audio="", unit_hash="another")
    assert {row.split for row in read_units_manifest(path, NUM_UNITS, splits=("train",))} == {"train"}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"tgt_audio": "1 2 6"}, r"units.tsv:3: unit 6 is outside 0..5"),
        ({"tgt_audio": ""}, r"units.tsv:3: empty tgt_audio"),
        ({"tgt_durations": "1 2"}, r"units.tsv:3: 2 durations for 6 units"),
        ({"tgt_durations": "1 2 0 1 1 1"}, r"units.tsv:3: tgt_durations must be whole numbers of frames, 1 or more"),
        ({"tgt_durations": "1 2 1.5 1 1 1"}, r"units.tsv:3: tgt_durations must be whole numbers"),
        ({"tgt_durations": "-1 2 1 1 1 1"}, r"units.tsv:3: tgt_durations must be whole numbers"),
        ({"tgt_speech": " "}, r"units.tsv:3: empty tgt_speech"),
        (
            {"unit_hash": "fedcba9876543210"},
            rf"centroids in one manifest, unit_hash {HASH} \(line 2\), fedcba9876543210 \(line 3\)",
        ),
        ({"unit_hash": ""}, rf"centroids in one manifest, unit_hash {HASH} \(line 2\), none \(line 3\)"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, cells: dict[str, str], message: str) -> None:
    path = write_voice(tmp_path / "v")
    edit_row(path, 1, **cells)
    with pytest.raises(ManifestError, match=message):
        read_units_manifest(path, NUM_UNITS).unit_hash()


def test_manifest_without_durations_or_recordings_is_refused(tmp_path: Path) -> None:
    path = write_voice(tmp_path / "v")
    with pytest.raises(ValueError, match="no column speech"):
        read_units_manifest(path, NUM_UNITS, audio_column="speech")
    path.write_text(path.read_text("utf-8").replace("tgt_durations", "seconds"), encoding="utf-8")
    with pytest.raises(ValueError, match="no column tgt_durations"):
        read_units_manifest(path, NUM_UNITS)


def test_recordings_must_fit_their_durations(tmp_path: Path) -> None:
    good = recording(tmp_path, [1, 2], [10, 10])
    audio = good.target_audio.path
    check_recordings([good, row("short", audio, [1, 2], [10, 9])])
    for frames in (14 - 1, 22 + 1):  # more than 6 frames of sound without units, more than 2 units without sound
        wrong = row("r9", audio, [3], [frames])
        with pytest.raises(
            ValueError, match=rf"r9: .* has 6400 samples \(20.0 unit frames\), its durations sum to {frames}"
        ):
            check_recordings([good, wrong])


def test_unusable_sound_files_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0, np.float32), 16000)
    missing = row("m", tmp_path / "missing.wav", [1], [1])
    with pytest.raises(AudioError, match="empty.wav: the recording has no samples"):
        check_recordings([row("e", empty, [1], [1])])
    for use in (lambda: check_recordings([missing]), lambda: load_recording(missing)):
        with pytest.raises(AudioError, match="missing.wav"):
            use()
    broken = recording(tmp_path, [1], [4])
    samples = tones([1], [4], extra=0)
    samples[700] = np.nan
    soundfile.write(broken.target_audio.path, samples, 16000, subtype="FLOAT")
    check_recordings([broken])  # the header does not show it
    with pytest.raises(AudioError, match=r"wav: samples must be finite"):
        load_recording(broken)


def test_any_sound_file_is_read_at_16_khz(tmp_path: Path) -> None:
    units, durations = [0, 3], [20, 20]
    wanted = tones(units, durations, extra=0)
    fast = recording(tmp_path, units, durations, rate=48000)
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.stack([wanted, wanted], axis=1), 16000, subtype="PCM_U8")
    eight_bit = row("s", stereo, units, durations)
    for item, error in ((fast, 0.05), (eight_bit, 0.01)):
        piece = load_recording(item, start=5, frames=10)
        assert piece.shape == (3200,) and np.abs(piece - wanted[1600:4800])[50:-50].max() < error
    np.testing.assert_array_equal(load_recording(eight_bit, start=38, frames=4)[640:], 0)  # two frames past the end


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("packed", [False, True])
def test_parts_of_files_equal_files_that_were_cut(tmp_path: Path, rate: int, packed: bool) -> None:
    """``x.flac:START:SAMPLES``, in samples of the file, and a sound file in an archive."""
    rng, pieces, rows, start = np.random.default_rng(0), [], [], 0
    for index in range(4):
        units, durations = [index, 5 - index], [7 + index, 9]
        samples = rng.normal(0, 0.1, (sum(durations) * 320 + 100 * index) * rate // 16000)
        samples = np.round(samples * 2**15) / 2**15  # exact in 16 bit
        soundfile.write(tmp_path / f"{index}.flac", samples, rate)
        pieces.append(samples)
        rows.append((row(f"r{index}", tmp_path / f"{index}.flac", units, durations), start, len(samples)))
        start += len(samples)
    soundfile.write(tmp_path / "all.flac", np.concatenate(pieces), rate)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_STORED) as archive:
        for index in range(4):
            archive.write(tmp_path / f"{index}.flac", f"{index}.flac")
        offsets = [archive.getinfo(f"{index}.flac").header_offset + 30 + len("0.flac") for index in range(4)]
    references = [f"all.flac:{start}:{count}" for _, start, count in rows]
    if packed:
        sizes = [(tmp_path / f"{index}.flac").stat().st_size for index in range(4)]
        references = [f"all.zip:{offset}:{size}" for offset, size in zip(offsets, sizes)]
    lines = ["id\ttgt_speech\ttgt_audio\ttgt_durations"]
    for (cut, _, _), reference in zip(rows, references):
        codes, durations = (" ".join(map(str, part)) for part in (cut.units.codes, cut.units.durations))
        lines.append(f"{cut.id}\t{reference}\t{codes}\t{durations}")
    (tmp_path / "units.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts, cuts = read_units_manifest(tmp_path / "units.tsv", NUM_UNITS).rows, [cut for cut, _, _ in rows]
    check_recordings(parts)
    data, expected = CropDataset(parts, 6, 2), CropDataset(cuts, 6, 2)
    for index in range(4):
        np.testing.assert_array_equal(load_recording(parts[index]), load_recording(cuts[index]))
        for seed in range(12):
            torch.testing.assert_close(vars(data[index, seed]), vars(expected[index, seed]), rtol=0, atol=0)
    with pytest.raises(ManifestError, match=r"r1: .*all\.(flac|zip):\d+:\d+ has \d+ samples"):
        check_recordings([dataclasses.replace(parts[1], units=Units((1,), (40,)))])


def test_crops_are_the_samples_of_their_frames_with_real_neighbours(tmp_path: Path) -> None:
    units, durations = [4, 1, 3, 0, 5, 2], [3, 9, 4, 8, 6, 10]
    source = recording(tmp_path, units, durations)
    frames, samples = np.repeat(units, durations), load_recording(source)
    data = CropDataset([source], crop_frames=8, context_frames=3)
    starts = Counter()
    for seed in range(150):
        crop = data[0, seed]
        assert crop.length == len(crop.frames) == 14
        first = next(i for i in range(27) if (frames[i : i + 14] == crop.frames.numpy()).all())
        candidates = [
            start for start in range(33) if np.array_equal(samples[start * 320 : (start + 8) * 320], crop.samples)
        ]
        # The window lies around the crop, shifted inwards at the recording's edges.
        placed = [start for start in candidates if start == first + crop.offset or len(candidates) > 1]
        assert placed, (seed, candidates, first)
        if len(candidates) == 1:
            starts[candidates[0]] += 1
            assert first == min(max(0, candidates[0] - 3), 40 - 14)
    assert {0, 32} <= starts.keys()  # both ends occur


def test_same_seed_same_crop(tmp_path: Path) -> None:
    data = CropDataset([recording(tmp_path, [4, 1], [30, 30])], crop_frames=8, context_frames=0)
    torch.testing.assert_close(data[0, 7].samples, data[0, 7].samples, rtol=0, atol=0)
    assert len({float(data[0, seed].samples.sum()) for seed in range(8)}) > 4


def test_short_recordings_are_padded(tmp_path: Path) -> None:
    data = CropDataset([recording(tmp_path, [4, 1], [2, 3]), recording(tmp_path, [2], [40])], 8, 2)
    short, long = data[0, 1], data[1, 1]
    assert (short.length, short.offset, short.frames.tolist()) == (5, 0, [4, 4, 1, 1, 1] + [0] * 7)
    assert short.samples[1600:].abs().max() == 0 and short.samples[:1600].abs().max() > 0.1
    batch = collate([short, long])
    assert batch.lengths.tolist() == [5, 12] and collate([long, long]).lengths is None
    assert batch.units.tolist() == [[4, 1], [2, 0]] and batch.unit_lengths.tolist() == [2, 1]
    assert batch.durations.tolist() == [[2, 3], [40, 0]]


def test_batches_pass_over_all_recordings_and_go_on_anywhere() -> None:
    whole = list(StepBatches(10, 4, seed=3, start=0, stop=5))
    assert [len(batch) for batch in whole] == [4] * 5
    places = [index for batch in whole for index, _ in batch]
    assert sorted(places[:10]) == sorted(places[10:]) == list(range(10)) and places[:10] != places[10:]
    assert len({seed for batch in whole for _, seed in batch}) == 20
    assert list(StepBatches(10, 4, seed=3, start=2, stop=5)) == whole[2:]
    assert list(StepBatches(10, 4, seed=4, start=0, stop=5)) != whole


def test_ranks_share_out_what_one_process_would_see() -> None:
    whole = list(StepBatches(10, 4, seed=3, start=0, stop=5))
    parts = [list(StepBatches(10, 4, 3, 0, 5, rank, 2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert sorted(parts[0][step] + parts[1][step]) == sorted(batch)
        assert len(parts[0][step]) == len(parts[1][step]) == 2


def test_shipped_configurations_can_be_read() -> None:
    config, settings = read_configuration(CONFIGS / "vocoder_published.json")
    assert config.upsample_rates == (5, 4, 4, 2, 2) and config.num_embeddings == 1000
    assert settings.adversarial_from == 0 and settings.mel_resolutions == ((1024, 256, 80),)
    assert (settings.learning_rate, settings.betas, settings.mel_weight) == (2e-4, (0.8, 0.99), 45)
    config, settings = read_configuration(CONFIGS / "vocoder_small.json", num_embeddings=50, max_updates=9)
    assert config.num_embeddings == 50 and settings.max_updates == 9 and settings.adversarial_from is None
    assert TrainingSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rte": 1}, "training has no entry 'learning_rte'"),
        ({"discriminators": {"period": [2]}}, "`training.discriminators` has no entry 'period'"),
        ({"batch_size": 0}, "`training.batch_size` must be a whole number of at least 1, but is 0"),
        ({"batch_size": 1.5}, "`training.batch_size` must be a whole number of at least 1, but is 1.5"),
        ({"warmup_updates": -1}, "`training.warmup_updates` must be a whole number of at least 0, but is -1"),
        ({"adversarial_from": -3}, "`training.adversarial_from` must be a whole number of at least 0, but is -3"),
        ({"betas": [0.9]}, r"`training.betas` must have 2 entries, but is \[0.9\]"),
        ({"betas": [0.9, 1]}, r"`training.betas\[1\]` must be a finite number of at least 0 and less than 1, but is 1"),
        ({"floor": 0}, "`training.floor` must be a finite number above 0, but is 0"),
        ({"decay": -1}, "`training.decay` must be a finite number above 0, but is -1"),
        ({"clip_norm": 0}, "`training.clip_norm` must be a finite number above 0, but is 0"),
        ({"init_std": "0.1"}, "`training.init_std` must be a finite number of at least 0, but is '0.1'"),
        (
            {"final_fraction": 2},
            "`training.final_fraction` must be a finite number of at least 0 and at most 1, but is 2",
        ),
        ({"mel_resolutions": [[512, 0, 20]]}, r"`training.mel_resolutions\[0\]\[1\]` must be a whole number"),
        (
            {"mel_resolutions": [[512, 128]]},
            r"`training.mel_resolutions\[0\]` must have 3 entries, but is \[512, 128\]",
        ),
        ({"stft_resolutions": [[128, 512]]}, r"stft_resolutions must be \(n_fft, hop\) with hop at most n_fft"),
        ({"stft_resolutions": [512, 128]}, r"`training.stft_resolutions\[0\]` must be a list, but is 512"),
        (
            {"discriminators": {"periods": [0]}},
            r"`training.discriminators.periods\[0\]` must be a whole number of at least 1, but is 0",
        ),
        ({"discriminators": {"period_channels": []}}, "discriminators.period_channels must have at least one entry"),
        (
            {"discriminators": {"scale_width": 0}},
            "`training.discriminators.scale_width` must be a whole number of at least 1, but is 0",
        ),
        ({"learning_rate": 0}, "`training.learning_rate` must be a finite number above 0, but is 0"),
        ({"ema_decay": 1}, "`training.ema_decay` must be a finite number of at least 0 and less than 1, but is 1"),
        ({"mel_weight": -1}, "`training.mel_weight` must be a finite number of at least 0, but is -1"),
        (
            {"mel_weight": 0, "stft_weight": 0},
            "the waveform needs a loss: set mel_weight, stft_weight, or adversarial_from to 0",
        ),
        (
            {"mel_resolutions": [[4096, 256, 80]]},
            "crop_frames 8 are 2560 samples, fewer than the longest transform, 4096",
        ),
    ],
)
def test_bad_settings_are_refused_with_the_files_name(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"c.json: .*{message}"):
        read_configuration(write_config(tmp_path / "c.json", **changed))


def test_missing_or_damaged_configurations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.json: no such configuration"):
        read_configuration(tmp_path / "none.json")
    for content, message in (("{", "c.json"), ("[]", "c.json"), ("{}", "c.json: vocoder configuration lacks")):
        (tmp_path / "c.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_configuration(tmp_path / "c.json")
