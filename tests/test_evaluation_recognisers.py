"""Recognisers behind one interface: what they understand and when, and what they refuse."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from random_system import make_bundle, make_signal

from nast_s2x.checkpoints import huggingface
from nast_s2x.chunking import SlotRates
from nast_s2x.cli.main import main
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference.bundle import save_bundle
from nast_s2x.inference.offline import translate_batch
from nast_s2x.inference.system import System
from nast_s2x.labels import UNK
from nast_s2x.recognisers import NOTHING, RecognisedWord, Recogniser, Transcript, open_recogniser
from nast_s2x.recognisers.bundle import BundleRecogniser, words_of_labels
from nast_s2x.recognisers.wav2vec2 import Vocabulary, Wav2Vec2Recogniser, read_vocabulary
from nast_s2x.recognisers.wav2vec2 import words_of_characters as label_words

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcde'"]
CONVOLUTIONS = {"conv_dim": [8] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2]}


def with_languages(system: System, **languages: str | None) -> System:
    return replace(system, info=replace(system.info, **languages))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random bundle from French to French."""
    path = tmp_path_factory.mktemp("bundle")
    return save_bundle(with_languages(make_bundle(path / "parts", units=False), target_lang="fr"), path / "hears")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> System:
    return BundleRecogniser.load(folder).bundle


def check_interface(recogniser: Recogniser) -> list[Transcript]:
    """What holds for all: order, independence of neighbours, words of the text with times inside the sound."""
    sounds = [make_signal(seconds, seed) for seed, seconds in enumerate((1.7, 0.0, 3.1, 0.02, 0.9))]
    found = recogniser.transcribe(sounds)
    assert [recogniser.transcribe([sound])[0] for sound in sounds] == found
    assert found[1] == NOTHING and recogniser.transcribe([]) == []
    for sound, transcript in zip(sounds, found):
        assert transcript.text == " ".join(word.text for word in transcript.words)
        times = [time for word in transcript.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times) and all(0 <= time <= len(sound) / 16000 + 1e-9 for time in times)
    for wrong, message in ((np.array([0, np.nan]), "sample 1 is nan"), (np.zeros((4, 2)), r"got \(4, 2\)")):
        with pytest.raises(ValueError, match=f"waveform 1 must .*{message}"):
            recogniser.transcribe([sounds[0], wrong])
    return found


# --- this project's bundles


def test_a_bundle_says_what_offline_translation_says(folder: Path) -> None:
    recogniser = open_recogniser(f"bundle:{folder}", language="fr")
    found = check_interface(recogniser)
    assert len(set(found)) == 4 and len(found[2].words) > 2
    translation = translate_batch(recogniser.bundle, [fbank(make_signal(3.1, 2))])[0]
    assert found[2].text == translation.text


def test_words_of_a_bundle_lie_where_their_slots_are(bundle: System, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = bundle.text.blank
    labels, expected = [blank], []
    for text in ("the", "blueberries", "is"):
        tokens = bundle.text.encode(text)
        assert UNK not in tokens and (text != "blueberries" or len(tokens) > 3)
        first = len(labels)
        for token in tokens:  # a token fills two slots, a blank follows
            labels += [token, token, blank]
        expected.append((text, first, len(labels) - 1))  # that last blank is no part of the word
    labels = labels[:-1]
    for upsample, slot_s in ((1, 0.08), (2, 0.04)):
        monkeypatch.setattr(
            bundle.model, "config", replace(bundle.model.config, rates=SlotRates(text_upsample=upsample))
        )
        words = words_of_labels(bundle, labels, seconds=100.0)
        assert [word.text for word in words] == [text for text, _, _ in expected]
        times = [(word.start_s, word.end_s) for word in words]
        np.testing.assert_allclose(times, [(first * slot_s, end * slot_s) for _, first, end in expected])
    monkeypatch.undo()
    seconds = (len(labels) - 0.5) * 0.08  # the last slot reaches behind the end of the sound
    assert words_of_labels(bundle, labels, seconds)[-1].end_s == seconds
    assert words_of_labels(bundle, [blank] * 5, 0.4) == ()


def test_the_identity_changes_with_weights_and_not_with_the_place(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / folder.name)
    (copy / "README.md").write_text("another card", encoding="utf-8")
    identity = open_recogniser(str(folder)).identity
    assert open_recogniser(str(copy)).identity == identity
    other = make_bundle(tmp_path / "parts", units=False, seed=1)
    save_bundle(with_languages(other, target_lang="fr"), tmp_path / "other" / folder.name)
    changed = open_recogniser(str(tmp_path / "other" / folder.name)).identity
    assert changed != identity and changed.split()[:2] == identity.split()[:2] == ["bundle", folder.name]


def test_a_bundle_that_translates_is_refused(tmp_path: Path, bundle: System) -> None:
    translating = save_bundle(with_languages(bundle, target_lang="en"), tmp_path / "translates")
    with pytest.raises(ValueError, match="translates from fr to en: a recogniser must have the same source and target"):
        open_recogniser(f"bundle:{translating}")
    unknown = save_bundle(with_languages(bundle, source_lang=None, target_lang=None), tmp_path / "unknown")
    with pytest.raises(ValueError, match="has no languages"):
        open_recogniser(str(unknown))


def test_a_bundle_of_another_language_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="recognises fr, but the speech is en"):
        open_recogniser(f"bundle:{folder}", language="en")


@pytest.mark.parametrize("kind", ["bundle", "wav2vec2"])
def test_missing_folders_are_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "no")):
        open_recogniser(f"{kind}:{tmp_path / 'no'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'empty'}.*config.json"):
        open_recogniser(f"{kind}:{tmp_path / 'empty'}")


@pytest.mark.parametrize("spec", ["", "whisper:small", "bundle:", "wav2vec2", "faster-whisper:"])
def test_unknown_specs_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="a recogniser .* got " + repr(spec)):
        open_recogniser(spec)


def test_a_folder_may_have_the_name_of_a_kind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    assert open_recogniser("bundle").identity == open_recogniser("bundle:bundle").identity


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="/no/such/folder"):
        open_recogniser("/no/such/folder")


def test_devices_that_are_not_there_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="cuda:99"):
        open_recogniser(str(folder), device="cuda:99")


# --- faster-whisper


class FakeWhisper:
    """As much of ``faster_whisper.WhisperModel`` as is used; hears a word for each second."""

    def __init__(self, path: str, device: str, device_index: int, compute_type: str) -> None:
        if (Path(path) / "model.bin").read_bytes() == b"damaged":
            raise RuntimeError("Unable to open file 'model.bin'\nand more")
        self.where = (device, device_index)
        self.model = SimpleNamespace(compute_type="float32" if compute_type == "default" else compute_type)
        self.supported_languages = ["en", "fr"]
        self.calls: list[dict[str, Any]] = []

    def transcribe(self, audio: np.ndarray, **options: Any) -> tuple[Any, Any]:
        assert audio.dtype == np.float32 and audio.ndim == 1
        self.calls.append(options)
        seconds = range(int(np.ceil(len(audio) / 16000)))
        words = [SimpleNamespace(word=f" Word{s},", start=np.float64(s), end=s + 0.5) for s in seconds]
        segments = [SimpleNamespace(text="".join(w.word for w in part), words=part) for part in (words[:2], words[2:])]
        return iter(segments), SimpleNamespace(language="en")


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of the right form, and a library that opens it."""

    def download_model(name: str) -> str:
        if name != "tiny":
            raise RuntimeError(f"no way to {name}\nmore")
        return str(tmp_path / "model")

    library = SimpleNamespace(WhisperModel=FakeWhisper, download_model=download_model, __version__="1.2.3")
    monkeypatch.setitem(sys.modules, "faster_whisper", library)
    (tmp_path / "model").mkdir()
    for name in ("model.bin", "tokenizer.json", "README.md"):
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


def test_whisper_words_and_text(whisper: Path) -> None:
    recogniser = open_recogniser(f"faster-whisper:{whisper}", language="fr")
    found = check_interface(recogniser)
    assert found[2].text == "Word0, Word1, Word2, Word3,"
    assert found[2].words[1] == RecognisedWord("Word1,", 1.0, 1.5)
    assert found[2].words[3] == RecognisedWord("Word3,", 3.0, 3.1)  # not 3.5: the sound ends before
    used = recogniser.model.calls[0]
    assert used["word_timestamps"] and used["language"] == "fr" and used["task"] == "transcribe"
    # No second tries by sampling, and nothing that an earlier window said.
    assert used["temperature"] == 0.0 and used["condition_on_previous_text"] is False
    assert len(recogniser.model.calls) == 8  # four with samples, together and alone


def test_whisper_identity_tells_model_version_and_options(whisper: Path) -> None:
    plain = open_recogniser(f"faster-whisper:{whisper}").identity
    kind, version, name, digest, *options = plain.split()
    assert (kind, version, name) == ("faster-whisper", "1.2.3", "model")
    assert options == ["language=auto", "beam_size=5", "compute_type=float32"]
    (whisper / "README.md").write_text("another card")
    by_name = open_recogniser("faster-whisper:tiny,language=en,beam_size=1,compute_type=int8", language="fr")
    assert by_name.identity == (
        f"faster-whisper 1.2.3 tiny {digest} language=en beam_size=1 compute_type=int8"  # an option goes first
    )
    (whisper / "model.bin").write_text("other weights")
    assert open_recogniser(f"faster-whisper:{whisper}").identity != plain


def test_whisper_devices(whisper: Path) -> None:
    for device, where in (("cpu", ("cpu", 0)), ("gpu", ("cuda", 0)), ("cuda:1", ("cuda", 1))):
        assert open_recogniser(f"faster-whisper:{whisper}", device).model.where == where


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("huge", "'huge' is not a folder and cannot be downloaded .no way to huge.$"),
        ("tiny,beam=3", r"options language, beam_size, compute_type, got \['beam'\]"),
        ("tiny,beam_size=0", "beam_size must be a whole number of at least 1, got 0"),
        ("tiny,beam_size=two", "beam_size must be a whole number of at least 1, got two"),
        ("tiny,language=xx", "recognises en, fr, not 'xx'"),
        ("tiny,device=cuda", r"options language, beam_size, compute_type, got \['device'\]"),
        ("tiny,name=small", r"options language, beam_size, compute_type, got \['name'\]"),
    ],
)
def test_whisper_refuses(whisper: Path, spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_recogniser(f"faster-whisper:{spec}")


def test_whisper_folders_must_be_whole(whisper: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder of a Whisper model: /no/where"):
        open_recogniser("faster-whisper:/no/where")
    (whisper / "model.bin").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"model: faster-whisper cannot open the model \(Unable to open file 'model"):
        open_recogniser(f"faster-whisper:{whisper}")
    (whisper / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="not a Whisper model of CTranslate2, tokenizer.json is missing"):
        open_recogniser(f"faster-whisper:{whisper}")


class Without:
    """An import hook under which a library is not installed."""

    def __init__(self, library: str) -> None:
        self.library = library

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == self.library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("library", ["faster_whisper", "transformers"])
def test_a_missing_library_is_named(
    letters: Path, library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Without(library), *sys.meta_path])
    spec = f"wav2vec2:{letters}" if library == "transformers" else "faster-whisper:tiny"
    with pytest.raises(ModuleNotFoundError) as raised:
        open_recogniser(spec)
    assert raised.value.name == library
    assert main(["score", str(tmp_path), "--recogniser", spec]) == 1
    assert f"'{library}', which is not installed" in capsys.readouterr().err


# --- wav2vec2


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ``Wav2Vec2ForCTC`` that spells with a few letters."""
    pytest.importorskip("transformers")
    with huggingface.without_torchaudio():
        from transformers import Wav2Vec2Config, Wav2Vec2ForCTC
    torch.manual_seed(3)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, pad_token_id=0, **CONVOLUTIONS,
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 1.5 * parameter[0].numel() ** -0.5)
        logits = model(torch.from_numpy(make_signal(6.0, seed=99))[None]).logits[0]
        # All labels but the specials are about as likely, so that words vary.
        model.lm_head.bias -= logits.mean(0)
        model.lm_head.bias[1:4] = -1e3
    path = tmp_path_factory.mktemp("wav2vec2") / "letters"
    model.save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps({piece: label for label, piece in enumerate(LETTERS)}))
    (path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16000}))
    return path


def test_wav2vec2_agrees_with_the_decoder_of_transformers(letters: Path) -> None:
    recogniser = open_recogniser(f"wav2vec2:{letters}")
    found = check_interface(recogniser)
    assert len({transcript.text for transcript in found}) >= 4
    with huggingface.without_torchaudio():
        from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor
    tokenizer = Wav2Vec2CTCTokenizer(str(letters / "vocab.json"))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    several = 0
    for seed in range(6):
        samples = 0.3 * make_signal(2.5, seed) + 0.1
        values = extractor(samples, sampling_rate=16000, return_tensors="pt").input_values
        with torch.inference_mode():
            labels = recogniser.model(values).logits[0].argmax(-1)
        expected = tokenizer.decode(labels, output_word_offsets=True)
        (transcript,) = recogniser.transcribe([samples])
        assert transcript.text == " ".join(expected.text.split())
        spans = [(word["word"], word["start_offset"], word["end_offset"]) for word in expected.word_offsets]
        np.testing.assert_allclose(
            [(word.start_s, word.end_s) for word in transcript.words],
            [(0.02 * start, 0.02 * end) for _, start, end in spans],
        )
        several += len(spans) > 2
    assert several


def test_words_of_wav2vec2_lie_where_their_frames_are() -> None:
    vocabulary = Vocabulary({4: "|", 5: "a", 6: "b"}, blank=0, delimiter="|")
    # Another special (3) parts letters as the blank does; delimiters may stand anywhere.
    labels = [4, 0, 5, 5, 0, 5, 3, 6, 0, 4, 4, 0, 4, 6, 6, 0, 0, 4]
    words = label_words(vocabulary, labels, frame_s=0.5)
    assert words == (RecognisedWord("aab", 1.0, 4.0), RecognisedWord("b", 6.5, 7.5))
    assert label_words(vocabulary, [0, 4, 3, 4], 0.5) == ()


def test_wav2vec2_reads_specials_and_delimiter_from_the_tokenizer(letters: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(letters, tmp_path / "copy")
    assert read_vocabulary(letters, {"pad_token_id": 0}).pieces == dict(enumerate(LETTERS[4:], 4))
    settings = {"word_delimiter_token": "e", "unk_token": {"content": "a"}, "bos_token": None}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    vocabulary = read_vocabulary(copy, {"pad_token_id": 3})
    assert (vocabulary.delimiter, vocabulary.blank) == ("e", 3)
    assert set(vocabulary.pieces.values()) == {"<unk>", *"|bcde'"}


def test_wav2vec2_identity_changes_with_the_folder_s_content(letters: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(letters, tmp_path / "letters")
    identity = Wav2Vec2Recogniser.load(letters).identity
    assert Wav2Vec2Recogniser.load(copy).identity == identity
    (copy / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    assert Wav2Vec2Recogniser.load(copy).identity != identity


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", {"eng": {"a": 1}}, "must give each piece its own label, .* 'eng' is dict"),
        ("vocab.json", {"a": 1, "b": 1}, "its own label, .* but two are the same"),
        ("vocab.json", {}, "its own label, .* but it is empty"),
        ("vocab.json", {"a": 11}, "piece 'a' of vocab.json lies outside the 11 labels"),
        ("vocab.json", ["a"], "must hold a JSON object"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate must be 16000, not 8000"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"},
            "must be Wav2Vec2CTCTokenizer, but is Wav2Vec2PhonemeCTCTokenizer",
        ),
        ("config.json", {"model_type": "hubert"}, "model_type must be wav2vec2, not 'hubert'"),
    ],
)
def test_wav2vec2_refuses(letters: Path, tmp_path: Path, name: str, content: Any, message: str) -> None:
    copy = shutil.copytree(letters, tmp_path / "copy")
    (copy / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        open_recogniser(f"wav2vec2:{copy}")


@pytest.mark.parametrize("name", ["vocab.json", "preprocessor_config.json", "model.safetensors"])
def test_wav2vec2_names_a_missing_file(letters: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(letters, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"copy.*{name}"):
        open_recogniser(f"wav2vec2:{copy}")


def test_wav2vec2_without_a_trained_output_is_refused(letters: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(letters, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "lm_head" not in name}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="copy: the weights lack 2 parameters, lm_head.bias among them"):
        open_recogniser(f"wav2vec2:{copy}")
