"""The translation stream: errors, the end, inputs of all kinds; and the detokenizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_system import make_bundle, make_signal

from nast_s2x.errors import StreamError
from nast_s2x.inference.detokenizer import (
    StreamingDetokenizer,
    StreamingPieces,
    detokenize,
    text_of_pieces,
)
from nast_s2x.inference.offline import Translation, translate_batch, translate_samples
from nast_s2x.inference.streaming import TranslationStream
from nast_s2x.inference.system import System
from nast_s2x.labels import TextLabels


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> System:
    return make_bundle(tmp_path_factory.mktemp("system"))


def test_whole_words_come_with_the_next_word(bundle: System) -> None:
    tokenizer = bundle.text
    tokens = tokenizer.encode("the small house is red")
    stream = StreamingDetokenizer(tokenizer)
    seen = [stream.push([token]) for token in tokens]
    for place, (token, text) in enumerate(zip(tokens, seen, strict=True)):
        assert bool(text) == (place > 0 and tokenizer.starts_word(token))
    assert stream.finish() == " red" and stream.finish() == ""
    assert "".join(seen) == "the small house is"


def test_any_cut_of_random_tokens_gives_the_offline_text(bundle: System) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        tokens = rng.integers(3, bundle.text.blank, size=rng.integers(0, 30)).tolist()
        whole = detokenize(bundle.text, tokens)
        assert whole == bundle.text.decode(tokens)
        stream = StreamingDetokenizer(bundle.text)
        texts = []
        while tokens:
            size = int(rng.integers(0, 5))
            texts.append(stream.push(tokens[:size]))
            tokens = tokens[size:]
        texts.append(stream.finish())
        assert "".join(texts) == whole


def test_lone_word_starts_and_inner_spaces() -> None:
    labels = TextLabels(["\u2581", "a", "\u2581b", "c\u2581d"])
    stream = StreamingDetokenizer(labels)
    said = [stream.push([labels.label(piece)]) for piece in ("a", "\u2581", "\u2581", "a", "c\u2581d", "\u2581b")]
    assert said == ["", "a", "", "", " ac", " d"] and stream.finish() == " b"


def test_pieces_of_any_cut_join_to_the_offline_text(bundle: System) -> None:
    """Pieces with a space at any place, unknown ones among them; each text has one space before it."""
    labels = TextLabels(["\u2581", "a", "\u2581b", "c\u2581d", "e\u2581", "\u3000f"])
    rng = np.random.default_rng(1)
    for _ in range(200):
        tokens = rng.integers(3, labels.blank, size=rng.integers(0, 12)).tolist()
        stream, pieces = StreamingPieces(labels), []
        for start in range(0, len(tokens), 2):
            pieces += stream.push(tokens[start : start + 2])
        text = detokenize(labels, tokens)
        assert text_of_pieces(pieces) == (f" {text}" if text else "")
    stream = StreamingPieces(labels)
    assert stream.push([4, 5, 4]) == ["\u2581a"] and stream.push([5, 6, 5]) == ["\u2581a", "\u2581b", "a"]
    stream.finish()
    assert stream.push([5]) == ["\u2581a"]
    tokens = bundle.text.encode("the small house")
    assert StreamingPieces(bundle.text).push(tokens) == bundle.text.pieces(tokens)


def test_the_last_piece_may_end_the_stream(bundle: System) -> None:
    signal = make_signal(2.0, seed=2, rate=8000)
    in_two, in_one, in_many = (TranslationStream(bundle) for _ in range(3))
    expected = in_two.push(signal, 8000) + in_two.push([], final=True)
    assert in_one.push(signal, 8000, final=True) == expected and expected[-1].final
    pieces = [in_many.push(signal[start : start + 999], 8000) for start in range(0, 15000, 999)]
    pieces.append(in_many.push(signal[15984:], final=True))  # without a rate: that of the stream
    assert [emission for piece in pieces for emission in piece] == expected


def test_push_after_the_end(bundle: System) -> None:
    stream = TranslationStream(bundle)
    assert stream.push([], final=True) == [] and stream.is_finished
    for final in (False, True):
        with pytest.raises(StreamError, match="this stream has ended"):
            stream.push(np.zeros(10), final=final)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.array([0.0, np.nan]), None, "finite"),
        (np.array([0.0, np.inf]), None, "finite"),
        (np.zeros((2, 2, 2)), None, r"\(2, 2, 2\)"),
        (np.zeros((2, 16000)), None, "transpose"),
        (np.zeros((5, 0)), None, "shape"),
        (np.float32(0.5), None, "shape"),
        (np.zeros(5), 0, "rate"),
        (np.zeros(5), -8000, "rate"),
        (np.zeros(5), 8000.5, "rate"),
    ],
)
def test_bad_pieces_are_refused_and_change_nothing(
    bundle: System, samples: np.ndarray, rate: int | None, message: str
) -> None:
    signal = make_signal(1.0)
    expected = translate_samples(bundle, signal, policy=bundle.policy())
    translator = TranslationStream(bundle)
    with pytest.raises(ValueError, match=message):
        translator.push(samples, rate)
    emissions = translator.push(signal) + translator.push([], final=True)
    assert "".join(emission.delta for emission in emissions) == expected.text


def test_rate_and_channels_stay(bundle: System) -> None:
    translator = TranslationStream(bundle)
    translator.push(np.zeros((100, 2)), 44100)
    with pytest.raises(ValueError, match="began at 44100 Hz, this piece has 16000 Hz"):
        translator.push(np.zeros((100, 2)), 16000)
    translator.push(np.zeros((100, 2)))  # without a rate: that of the stream
    with pytest.raises(ValueError, match="began with 2 channels, this piece has 1"):
        translator.push(np.zeros(100), 44100)
    translator.push(np.zeros(0), 44100)  # an empty piece has no channels


def test_an_empty_push_does_not_fix_the_rate(bundle: System) -> None:
    signal = make_signal(1.0)
    stream, expected = TranslationStream(bundle), TranslationStream(bundle)
    assert stream.push([], 48000) == []
    assert stream.push(signal, 16000, final=True) == expected.push(signal, 16000, final=True)


@pytest.mark.parametrize("kind", ["list", "int16", "float64", "torch", "two channels"])
def test_kinds_of_samples(bundle: System, kind: str) -> None:
    signal = (make_signal(1.2, seed=4) * 32767).astype(np.int16)
    floats = signal.astype(np.float32) / 32768
    pieces = {
        "list": floats.tolist(),
        "int16": signal,
        "float64": floats.astype(np.float64),
        "torch": torch.from_numpy(floats),
        "two channels": np.stack([floats, floats], axis=1),
    }
    expected, translator = TranslationStream(bundle), TranslationStream(bundle)
    assert translator.push(pieces[kind]) == expected.push(floats)
    assert translator.push([], final=True) == expected.push([], final=True)


def test_pushed_samples_may_be_overwritten(bundle: System) -> None:
    """Sound libraries reuse their buffers: a translator must not look at a piece after push has returned."""
    signal = make_signal(1.5, seed=6)
    translator, buffer = TranslationStream(bundle), np.zeros(100, np.float32)
    for start in range(0, len(signal), 100):
        buffer[:] = signal[start : start + 100]
        translator.push(buffer)
        buffer[:] = 9.0
    expected = TranslationStream(bundle)
    expected.push(signal)
    assert [e.tokens for e in translator.push([], final=True)] == [e.tokens for e in expected.push([], final=True)]


def test_without_units(bundle: System) -> None:
    signal = make_signal(1.5, seed=3)
    plain, full = TranslationStream(bundle, with_units=False), TranslationStream(bundle)
    without, with_units = plain.push(signal) + plain.push([], final=True), full.push(signal) + full.push([], final=True)
    assert all(not emission.units for emission in without) and any(emission.units for emission in with_units)
    assert [emission.tokens for emission in without] == [emission.tokens for emission in with_units]


def test_an_error_of_the_network_ends_the_stream(bundle: System, monkeypatch: pytest.MonkeyPatch) -> None:
    translator, other = TranslationStream(bundle), TranslationStream(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(bundle.model, "step", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            translator.push(np.zeros(16000))
    assert translator.is_finished and not other.is_finished
    with pytest.raises(StreamError, match="has ended, by final=True or by an error"):
        translator.push(np.zeros(16))
    other.push(np.zeros(16000), final=True)


def test_batches_padding_and_empty_utterances(bundle: System) -> None:
    from nast_s2x.frontend.fbank import fbank

    features = [fbank(make_signal(seconds, seed=int(10 * seconds))) for seconds in (0.0, 2.1, 0.3, 1.0)]
    together = translate_batch(bundle, features, bundle.policy(160))
    alone = [translate_batch(bundle, [item.numpy()], bundle.policy(160))[0] for item in features]
    for one, other in zip(together, alone, strict=True):
        assert (one.labels, one.unit_labels, one.text) == (other.labels, other.unit_labels, other.text)
        assert one.score == pytest.approx(other.score, abs=1e-4)
    assert together[0] == Translation() and translate_batch(bundle, []) == []
    with pytest.raises(ValueError, match=r"\(frames, 80\)"):
        translate_batch(bundle, [torch.zeros(10, 40)])
