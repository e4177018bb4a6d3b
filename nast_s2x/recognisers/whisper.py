"""Whisper (Radford et al., 2023) as a recogniser, run by the library faster-whisper; extra ``whisper``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nast_s2x.device import find_device
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.samples import SAMPLE_RATE
from nast_s2x.recognisers.base import (
    NOTHING,
    RecognisedWord,
    Transcript,
    Waveform,
    files_digest,
    transcribe_each,
)

BEAM_SIZE = 5


class WhisperRecogniser:
    """A Whisper model; see :class:`~nast_s2x.recognisers.base.Recogniser`.

    Beam search at temperature 0: the library's retries at higher temperatures draw samples at random, and the same
    waveform must have the same transcript each time. Windows do not depend on the text of earlier windows.

    Args:
        model: a ``faster_whisper.WhisperModel``.
        identity: see :class:`~nast_s2x.recognisers.base.Recogniser`.
        language: of the speech; ``None``: detected for each waveform.
        beam_size: hypotheses of the search, at least 1.
    """

    def __init__(self, model: Any, identity: str, language: str | None = None, beam_size: int = BEAM_SIZE) -> None:
        self.model, self.identity, self.language, self.beam_size = model, identity, language, beam_size

    @classmethod
    def load(
        cls,
        name: str,
        device: str = "cpu",
        /,
        language: str | None = None,
        beam_size: int | str = BEAM_SIZE,
        compute_type: str = "default",
        **unknown: str,
    ) -> WhisperRecogniser:
        """Open a model.

        Args:
            name: folder of a model in CTranslate2's format, or a name of faster-whisper ("small", "large-v3",
                "Systran/faster-whisper-small"): downloaded from the Hugging Face hub unless it is cached.
            device: ``cpu``, ``cuda``, ``cuda:N``.
            compute_type: CTranslate2's number type ("float32", "int8", "float16"); "default" keeps the model's if the
                device supports it.
        Raises:
            ModuleNotFoundError: faster-whisper is not installed.
            ConfigError: an unknown option or value, an unknown name, a model that cannot be downloaded or is damaged.
            FileNotFoundError: no such folder, or a file of the model is missing in it.
        """
        if unknown:
            raise ConfigError(f"faster-whisper has the options language, beam_size, compute_type, got {list(unknown)}")
        if not str(beam_size).isdecimal() or int(beam_size) < 1:
            raise ConfigError(f"faster-whisper's beam_size must be a whole number of at least 1, got {beam_size}")
        library = _library()
        folder = _model_folder(library, name)
        where = find_device(device, must_exist=False)
        try:
            model = library.WhisperModel(
                str(folder), device=where.type, device_index=where.index or 0, compute_type=compute_type
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"{folder}: faster-whisper cannot open the model ({_reason(error)})") from error
        _check_language(model, language)
        files = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith((".", "README")))
        settings = f"language={language or 'auto'} beam_size={beam_size} compute_type={model.model.compute_type}"
        title = f"{folder.resolve().name if Path(name).is_dir() else name} {files_digest(files)}"
        identity = f"faster-whisper {library.__version__} {title} {settings}"
        return cls(model, identity, language, int(beam_size))

    def transcribe(self, waveforms: Sequence[Waveform], progress: bool = False) -> list[Transcript]:
        """See :class:`~nast_s2x.recognisers.base.Recogniser`; one waveform at a time."""
        return transcribe_each(self._transcript, waveforms, progress)

    def _transcript(self, waveform: Waveform) -> Transcript:
        if not len(waveform):
            return NOTHING
        segments, _ = self.model.transcribe(
            waveform,
            language=self.language,
            task="transcribe",
            beam_size=self.beam_size,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        # Whisper pads windows to 30 s with silence, so its times can lie after the end of the waveform.
        seconds = len(waveform) / SAMPLE_RATE
        texts, words = [], []
        for segment in segments:  # a generator: recognition runs here
            texts.append(segment.text)
            for word in segment.words or ():
                if word.word.strip():
                    start, end = (min(seconds, float(time)) for time in (word.start, word.end))
                    words.append(RecognisedWord(word.word.strip(), start, max(start, end)))
        return Transcript(" ".join(" ".join(texts).split()), tuple(words))


def _library() -> Any:
    """Import faster-whisper."""
    try:
        import faster_whisper
    except ModuleNotFoundError as error:
        if error.name != "faster_whisper":
            raise
        raise ModuleNotFoundError(
            "a Whisper recogniser needs faster-whisper, which is not installed: pip install 'nast-s2x[whisper]'",
            name="faster_whisper",
        ) from None
    return faster_whisper


def _model_folder(library: Any, name: str) -> Path:
    """Folder of a model, from the cache or downloaded if ``name`` is not a folder."""
    folder = Path(name)
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise FileNotFoundError(f"no such folder of a Whisper model: {name}")
        try:
            folder = Path(library.download_model(name))
        except Exception as error:  # the hub's client has many kinds of errors, of several libraries
            raise ConfigError(
                f"Whisper's model {name!r} is not a folder and cannot be downloaded ({_reason(error)})"
            ) from error
    for file in ("model.bin", "tokenizer.json"):  # without the second, the library would ask the hub for one
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder}: not a Whisper model of CTranslate2, {file} is missing")
    return folder


def _check_language(model: Any, language: str | None) -> None:
    known = model.supported_languages
    if language is not None and language not in known:
        raise ConfigError(f"this Whisper model recognises {', '.join(sorted(known))}, not {language!r}")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
