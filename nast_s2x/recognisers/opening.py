"""Open the recogniser of a spec such as ``bundle:FOLDER``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nast_s2x.errors import ConfigError
from nast_s2x.recognisers.base import Recogniser

KINDS = ("bundle", "faster-whisper", "wav2vec2")
_OPTION = re.compile(r",([a-z_]+)=([^,=]+)$")


def open_recogniser(spec: str, device: str = "cpu", language: str | None = None) -> Recogniser:
    """Open a recogniser. Only models that faster-whisper has by name are downloaded.

    Args:
        spec: ``bundle:FOLDER`` or the folder of a bundle; ``faster-whisper:MODEL_OR_FOLDER``, with options as in
            ``faster-whisper:small,language=en,beam_size=5``; ``wav2vec2:FOLDER``.
        device: ``cpu``, ``cuda``, ``cuda:N``; ``gpu`` is accepted for ``cuda``.
        language: of the speech ("en"). A bundle of another language is refused, Whisper takes it as an option,
            wav2vec2 ignores it. ``None``: no check, and Whisper detects the language of each waveform.
    Raises:
        NastError: an unknown kind or option, a bundle that translates, another language, a damaged model.
        FileNotFoundError: no such folder, or a file is missing in it.
        ModuleNotFoundError: the library of the kind is not installed; the extra that installs it is named.
    """
    kind, name, options = _parse(spec)
    if kind == "bundle":
        from nast_s2x.recognisers.bundle import BundleRecogniser

        return BundleRecogniser.load(name, device, language)
    if kind == "faster-whisper":
        from nast_s2x.recognisers.whisper import WhisperRecogniser

        return WhisperRecogniser.load(name, device, **{"language": language, **options})
    from nast_s2x.recognisers.wav2vec2 import Wav2Vec2Recogniser

    return Wav2Vec2Recogniser.load(name, device)


def _parse(spec: str) -> tuple[str, str, dict[str, Any]]:
    """Kind, model and options of a spec."""
    kind, colon, name = spec.partition(":")
    if not colon or kind not in KINDS:
        if "/" in spec and not Path(spec).is_dir():
            raise FileNotFoundError(f"recogniser {spec}: no such folder")
        if not spec or not Path(spec).is_dir():
            listed = ", ".join(f"{kind}:..." for kind in KINDS)
            raise ConfigError(f"a recogniser is a bundle folder or one of {listed}, got {spec!r}")
        return "bundle", spec, {}
    options: dict[str, Any] = {}
    while kind == "faster-whisper" and (match := _OPTION.search(name)):
        options[match[1]] = match[2]
        name = name[: match.start()]
    if not name:
        raise ConfigError(f"a recogniser {kind}:... needs a model after the colon, got {spec!r}")
    return kind, name, options
