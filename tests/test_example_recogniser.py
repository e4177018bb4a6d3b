"""The corpus of the example's recogniser: its plan (fast), the changes of sound, speech where espeak-ng exists."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from espeak_fr_en import recogniser, speech  # noqa: E402

from nast_s2x.inference.loading import load_system  # noqa: E402
from nast_s2x.metrics.quality import word_error_rate  # noqa: E402
from nast_s2x.recognisers import open_recogniser  # noqa: E402

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
HEADER = "id\taudio\tsrc_text\ttgt_text\tsplit\ttgt_speech"
ROWS = [
    "train_0\ta.flac\tle chat dort\tthe cat sleeps\ttrain\ttarget/train/train_0.flac",
    "dev_0\tb.flac\tle chien dort\tthe dog sleeps\tdev\ttarget/dev/dev_0.flac",
    "test_0\tc.flac\tun chat dort\ta cat sleeps\ttest\ttarget/test/test_0.flac",
]


def write_corpus(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.tsv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return folder


def band_power(samples: np.ndarray, low: float, high: float) -> float:
    """Mean power of the spectrum between two frequencies, in dB."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(samples.size, 1 / speech.SAMPLE_RATE)
    return float(10 * np.log10(spectrum[(low <= frequencies) & (frequencies < high)].mean()))


def test_training_recordings_are_the_original_voice_changed() -> None:
    plans = [recogniser.plan(f"train_{number}", "the cat", "a.flac", 1) for number in range(300)]
    assert {plan.voice for plan in plans} == {speech.TARGET_VOICE}
    for value in ("speed", "pitch", "melody", "noise_slope", "snr", "lowpass", "peak", "noise_seed"):
        assert len({getattr(plan, value) for plan in plans}) >= 3, value
    for name, (low, high) in {"speed": (150, 220), "pitch": (45, 75), "melody": (0, 60), "snr": (8, 40)}.items():
        drawn = [getattr(plan, name) for plan in plans]
        assert low <= min(drawn) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(drawn) <= high, name
    assert all(len(plan.bands) == len(speech.BANDS) and max(map(abs, plan.bands)) <= 6 for plan in plans)


def test_plans_depend_on_seed_and_id_alone() -> None:
    first, again, other, next_seed = (
        recogniser.plan(identity, "the cat", "a.flac", seed)
        for identity, seed in (("x", 1), ("x", 1), ("y", 1), ("x", 2))
    )
    assert first == again
    assert len({first.noise_seed, other.noise_seed, next_seed.noise_seed}) == 3


def test_only_training_is_spoken_again(tmp_path: Path) -> None:
    corpus, output = write_corpus(tmp_path / "corpus", ROWS), tmp_path / "made" / "rec"
    rows, utterances = recogniser.plan_corpus(recogniser.read_corpus(corpus), corpus, output, 1)
    assert [utterance.text for utterance in utterances] == ["the cat sleeps"]
    assert rows[0] == {
        "id": "train_0",
        "audio": "audio/train_0.flac",
        "src_text": "the cat sleeps",
        "tgt_text": "the cat sleeps",
        "split": "train",
    }
    assert [row["audio"] for row in rows[1:]] == [
        "../../corpus/target/dev/dev_0.flac",
        "../../corpus/target/test/test_0.flac",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, "test_1\td.flac\tx\tthe cat sleeps\ttest\te.flac"], "test_1 is also in train"),
        (ROWS[1:], "there is none"),
        ([*ROWS, "test_1\td.flac\tx\ta dog\ttest\t"], ":5: empty tgt_speech"),
        ([*ROWS, "test_1\td.flac\tx\ta dog\tother\te.flac"], ":5: the split"),
        ([*ROWS, "test_1\td.flac"], ":5: has 2 columns"),
    ],
)
def test_a_wrong_corpus_is_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recogniser.read_corpus(write_corpus(tmp_path, rows))


def test_a_missing_corpus_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["recogniser.py", "--corpus", str(tmp_path / "no"), "--output", str(tmp_path / "x")]
    )
    assert recogniser.main() == 1
    assert "no such manifest" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_equaliser_changes_bands_as_asked() -> None:
    white = np.random.default_rng(0).standard_normal(64000)
    raised = speech.equalise(white, (0, 0, 0, 6, 0, 0, 0), 0.0)
    assert band_power(raised, 980, 1020) - band_power(white, 980, 1020) == pytest.approx(6, abs=0.3)
    assert band_power(raised, 3900, 4100) == pytest.approx(band_power(white, 3900, 4100), abs=1e-6)
    cut = speech.equalise(white, (), 2000.0)
    assert band_power(cut, 100, 1900) == pytest.approx(band_power(white, 100, 1900), abs=1e-6)
    assert band_power(cut, 3950, 4050) - band_power(white, 3950, 4050) == pytest.approx(-24, abs=0.5)
    with pytest.raises(ValueError, match="7 gains"):
        speech.equalise(white, (1.0, 2.0), 0.0)


@pytest.mark.parametrize("slope", [0.0, -3.0, -6.0])
def test_noise_has_power_one_and_its_colour(slope: float) -> None:
    noise = speech.coloured_noise(3, 160000, slope)
    assert np.mean(noise**2) == pytest.approx(1, abs=0.02)
    fall = band_power(noise, 3800, 4200) - band_power(noise, 475, 525)  # three octaves
    assert fall == pytest.approx(3 * slope, abs=0.8)


def test_plain_recordings_have_not_changed() -> None:
    """The committed models were trained on recordings with white noise and no equaliser."""
    tone = np.sin(np.arange(22050) / 10).astype(np.float32)
    utterance = speech.Utterance("a", "", "", "", 180, 50, 0.7, 30.0, 1)
    made = speech.finish(tone, 22050, utterance)
    quiet = speech.finish(tone, 22050, speech.Utterance("a", "", "", "", 180, 50, 0.7, 300.0, 1))
    noise = np.random.default_rng(1).standard_normal(made.size)
    assert np.corrcoef(made - quiet, noise)[0, 1] > 0.9999


@needs_espeak
def test_building_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path / "corpus", ROWS)
    command = ["recogniser.py", "--corpus", str(corpus), "--jobs", "1", "--output"]
    audio = []
    for name in ("first", "again"):
        monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / name)])
        assert recogniser.main() == 0
        path = tmp_path / name / "audio" / "train_0.flac"
        samples, rate = soundfile.read(path)
        assert rate == 16000 and samples.ndim == 1 and 0.8 < samples.size / rate < 2.5
        audio.append(samples)
    assert np.array_equal(*audio)
    stamp = path.stat().st_mtime_ns
    assert recogniser.main() == 0
    assert path.stat().st_mtime_ns == stamp
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "again"), "--seed", "2"])
    assert recogniser.main() == 1
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "again"), "--seed", "2", "--overwrite"])
    assert recogniser.main() == 0
    assert not np.array_equal(soundfile.read(path)[0][:8000], audio[0][:8000])


def test_the_bundle_is_small_marked_and_hears_english() -> None:
    folder = ROOT / "examples" / "espeak_fr_en" / "recogniser"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    bundle = load_system(folder)
    assert bundle.info.example and not bundle.has_units
    assert (bundle.info.source_lang, bundle.info.target_lang) == ("en", "en")
    assert [geometry.name for geometry in bundle.trained] == ["offline"]


@needs_espeak
def test_the_bundle_understands_test_sentences_but_not_backwards() -> None:
    hears = open_recogniser(str(ROOT / "examples" / "espeak_fr_en" / "recogniser"))
    manifest = ROOT / "examples" / "espeak_fr_en" / "recordings" / "manifest.tsv"
    texts = [line.split("\t")[3] for line in manifest.read_text(encoding="utf-8").splitlines()[1:9]]
    clear = [speech.synthesize(speech.plan_target(f"test_{n}", text, "", 1)) for n, text in enumerate(texts)]
    assert word_error_rate([transcript.text for transcript in hears.transcribe(clear)], texts) < 15
    backwards = hears.transcribe([samples[::-1] for samples in clear])
    assert word_error_rate([transcript.text for transcript in backwards], texts) > 60
