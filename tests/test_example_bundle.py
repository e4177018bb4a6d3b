"""The bundled example: what its card promises of the committed recordings, and that streaming equals offline on it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.streaming import TranslationStream

EXAMPLE = Path(__file__).parents[1] / "examples" / "espeak_fr_en"
RECORDINGS = EXAMPLE / "recordings"
CHUNKS = ("320", "640", "1280", "offline")


@pytest.fixture(scope="module")
def bundle():
    return load_system(EXAMPLE / "bundle")


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    return [load_audio(RECORDINGS / name) for name in (RECORDINGS / "source.txt").read_text().split()]


def stream(bundle, waveform: np.ndarray, chunk: str, cuts: list[int]) -> str:
    translator = TranslationStream(bundle, bundle.policy(chunk))
    emissions = [emission for piece in np.split(waveform, cuts) for emission in translator.push(piece)]
    return " ".join(emission.text for emission in [*emissions, *translator.push([], final=True)] if emission.text)


def test_lists_belong_together() -> None:
    rows = [line.split("\t") for line in (RECORDINGS / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    assert len(rows) == 20
    assert [row[1] for row in rows] == (RECORDINGS / "source.txt").read_text().split()
    assert [row[3] for row in rows] == (RECORDINGS / "target.txt").read_text(encoding="utf-8").splitlines()


def test_the_bundle_is_small_marked_and_trained_for_all_chunk_sizes(bundle) -> None:
    assert sum(path.stat().st_size for path in (EXAMPLE / "bundle").iterdir()) < 15e6
    assert bundle.info.example
    assert list(dict.fromkeys(policy.name for policy in bundle.trained)) == list(CHUNKS)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_streaming_equals_the_offline_pass(bundle, waveforms: list[np.ndarray], chunk: str) -> None:
    generator = np.random.default_rng(5)
    for waveform in waveforms[:4]:
        cuts = np.sort(generator.integers(0, len(waveform), 5)).tolist()
        features = bundle.normalize(fbank(waveform))[None]
        with torch.no_grad():
            labels = bundle.model(features, None, bundle.policy(chunk)).text_logits[0].argmax(-1)
        words = bundle.text.decode(_tokens(labels, bundle.text.blank))
        assert stream(bundle, waveform, chunk, cuts) == words


def _tokens(labels: torch.Tensor, blank: int) -> list[int]:
    merged = torch.unique_consecutive(labels).tolist()
    return [label for label in merged if label != blank and label > 2]


@pytest.mark.parametrize("chunk, least", [("320", 88), ("offline", 90)])
def test_bleu_of_the_recordings(bundle, waveforms: list[np.ndarray], chunk: str, least: float) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    hypotheses = [stream(bundle, waveform, chunk, []) for waveform in waveforms]
    references = (RECORDINGS / "target.txt").read_text(encoding="utf-8").splitlines()
    assert sacrebleu.corpus_bleu(hypotheses, [references]).score >= least


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("form", ["PCM_16", "FLOAT", "mp3"])
def test_format_and_rate_of_a_recording_hardly_matter(
    bundle, waveforms: list[np.ndarray], tmp_path: Path, rate: int, form: str
) -> None:
    sacrebleu, soxr = pytest.importorskip("sacrebleu"), pytest.importorskip("soxr")
    path = tmp_path / ("a.mp3" if form == "mp3" else "a.wav")
    texts, plain = [], []
    for waveform in waveforms[:6]:
        samples = soxr.resample(waveform, 16000, rate)
        soundfile.write(path, samples, rate, **({} if form == "mp3" else {"subtype": form}))
        texts.append(bundle.translate(path, chunk_ms=320).text)
        plain.append(stream(bundle, waveform, "320", []))
    assert sacrebleu.corpus_bleu(texts, [plain]).score > (85 if form == "mp3" else 97)
