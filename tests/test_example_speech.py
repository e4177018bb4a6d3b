"""The bundled voice: what its card promises of the committed recordings, seams, and what a recogniser understands."""

from pathlib import Path

import numpy as np
import pytest

from nast_s2x.frontend.audio import load_audio
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.offline import translate_samples
from nast_s2x.inference.streaming import TranslationStream
from nast_s2x.inference.system import System
from nast_s2x.metrics.quality import word_error_rate
from nast_s2x.recognisers import open_recogniser
from nast_s2x.units.centroids import Centroids
from nast_s2x.vocoder.offline import synthesize
from nast_s2x.vocoder.streaming import VocoderStream

EXAMPLE = Path(__file__).parents[1] / "examples" / "espeak_fr_en"


@pytest.fixture(scope="module")
def bundle() -> System:
    return load_system(EXAMPLE / "speech_bundle")


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    names = (EXAMPLE / "recordings" / "source.txt").read_text().split()
    return [load_audio(EXAMPLE / "recordings" / name) for name in names]


@pytest.fixture(scope="module")
def translations(bundle: System, recordings: list[np.ndarray]) -> list:
    policy = bundle.policy(320)
    return [translate_samples(bundle, samples, policy=policy, with_speech=True) for samples in recordings[:8]]


def test_the_bundle_is_small_marked_and_of_one_set_of_units(bundle: System) -> None:
    folders = ("bundle", "speech_bundle", "recogniser")
    assert sum(file.stat().st_size for name in folders for file in (EXAMPLE / name).rglob("*")) < 30e6
    centroids = Centroids.load(EXAMPLE / "speech_bundle" / "centroids.safetensors")
    assert bundle.info.example and bundle.vocoder is not None
    assert bundle.units.hash == bundle.vocoder.config.unit_hash == centroids.hash
    assert bundle.num_units == bundle.vocoder.config.num_embeddings == centroids.num_units == 100


def test_any_cut_gives_the_same_speech(bundle: System, recordings: list[np.ndarray], translations: list) -> None:
    generator = np.random.default_rng(5)
    for samples, expected in zip(recordings[:3], translations):
        translator = TranslationStream(bundle, bundle.policy(320), with_speech=True)
        cuts = np.sort(generator.integers(0, len(samples), 9)).tolist()
        emissions = [emission for piece in np.split(samples, cuts) for emission in translator.push(piece)]
        emissions += translator.push([], final=True)
        np.testing.assert_array_equal(np.concatenate([e.waveform for e in emissions]), expected.waveform)
        assert [unit for emission in emissions for unit in emission.units] == expected.units


def test_the_stream_is_one_window(bundle: System, translations: list) -> None:
    vocoder = bundle.require_vocoder()
    for translation in translations[:4]:
        (whole,) = synthesize(vocoder, [translation.units])
        chunks = [translation.units[start : start + 8] for start in range(0, len(translation.units), 8)]
        stream = VocoderStream(vocoder)
        assert stream.window.lookahead_frames == vocoder.config.lookahead_frames == 5
        pieces = [stream.push(chunk, final=chunk is chunks[-1]) for chunk in chunks]
        assert len([piece for piece in pieces if len(piece)]) >= 5
        np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-4)


def test_the_recogniser_understands_the_speech(translations: list) -> None:
    recogniser = open_recogniser(str(EXAMPLE / "recogniser"), language="en")
    references = (EXAMPLE / "recordings" / "target.txt").read_text(encoding="utf-8").splitlines()[: len(translations)]
    heard = recogniser.transcribe([translation.waveform for translation in translations])
    assert word_error_rate([t.text for t in heard], references) < 30  # the card says 16 on 200 sentences
    silence = 1e-3 * np.random.default_rng(1).standard_normal(48000).astype(np.float32)
    assert word_error_rate([recogniser.transcribe([silence])[0].text], references[:1]) > 60


def test_words_are_heard_where_they_are_spoken(translations: list) -> None:
    recogniser = open_recogniser(str(EXAMPLE / "recogniser"))
    pause = np.zeros(32000, np.float32)
    for spoken in (translation.waveform for translation in translations[:4]):
        words = recogniser.transcribe([np.concatenate([pause, spoken, pause])])[0].words
        inside = [word for word in words if word.start_s > 1.8 and word.end_s < 2.4 + len(spoken) / 16000]
        assert len(inside) >= 4 and len(inside) >= 0.8 * len(words)
        # They fill the speech, not a part of it.
        assert inside[-1].end_s - inside[0].start_s > 0.6 * len(spoken) / 16000
