"""Speaking sentences with espeak-ng: voices, speeds and pitches, 16 kHz mono FLAC, reproducible from (seed, id)."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16000
LEADING_SECONDS, TRAILING_SECONDS = 0.1, 0.4
ACCENTS = ("fr", "fr-be", "fr-ch")
# Variants of espeak-ng 1.51 that speak clearly: no whisper, no robot, no creak. No variant is in two lists.
TRAIN_VARIANTS = (
    "m1",
    "m2",
    "m4",
    "m7",
    "m8",
    "f1",
    "f3",
    "f4",
    "Alex",
    "Annie",
    "Andrea",
    "Denis",
    "Diogo",
    "Hugo",
    "Michael",
    "Mike",
    "linda",
    "paul",
    "steph",
)
DEV_VARIANTS = ("m6", "f5")
TEST_VARIANTS = ("m3", "f2", "Gene", "Mario")
# The translation's voice: one speaker of even level whose pitch does not move, because units carry no pitch.
TARGET_VOICE, TARGET_SPEED, TARGET_PITCH, TARGET_PEAK, TARGET_SNR = "en-us", 185, 60, 0.7, 45.0
BANDS = (125, 250, 500, 1000, 2000, 4000, 8000)  # Hz
INSTALL_HINT = (
    "espeak-ng was not found: install it (Debian, Ubuntu: apt install espeak-ng; macOS: brew install espeak-ng)"
)


@dataclass(frozen=True)
class Utterance:
    """What is said, how, and where it is written; `speed` in words a minute, `pitch` 0..99, `snr` in dB.

    `melody` is the range of the pitch in percent of the voice's own: 0 keeps it at one height. `noise_slope` colours
    the noise, in dB an octave (0 is white, -3 pink, -6 brown). `bands` are the gains in dB of the speech at the
    frequencies of BANDS, none of them: all 0; above `lowpass` Hz the speech fades by 24 dB an octave (0: nowhere).
    """

    id: str
    text: str
    path: str
    voice: str
    speed: int
    pitch: int
    peak: float
    snr: float
    noise_seed: int
    melody: int = 100
    noise_slope: float = 0.0
    bands: tuple[float, ...] = ()
    lowpass: float = 0.0


def find_espeak() -> str:
    """The espeak-ng program, or a message how to get it."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError(INSTALL_HINT)
    return program


def voices(split: str) -> tuple[str, ...]:
    """The voices (accent + variant) of a split; no variant of train is heard in dev or test."""
    variants = {"train": TRAIN_VARIANTS, "dev": DEV_VARIANTS, "test": TEST_VARIANTS}
    if split not in variants:
        raise ValueError(f"voices: the split must be train, dev or test, got {split!r}")
    return tuple(f"{accent}+{variant}" for variant in variants[split] for accent in ACCENTS)


def check_voices(names: Collection[str], program: str) -> None:
    """Raises for a voice that espeak-ng does not have: espeak-ng itself silently takes another one."""
    listed = subprocess.run([program, "--voices=variant"], capture_output=True, text=True, check=True).stdout
    variants = set(re.findall(r"!v/(\S+)", listed))
    for name in sorted(names):
        accent, _, variant = name.partition("+")
        known = subprocess.run([program, "-v", accent, "-q", "--stdin"], input=b"a", capture_output=True, check=False)
        if known.returncode != 0 or (variant and variant not in variants):
            raise ValueError(f"espeak-ng has no voice {name!r}: see espeak-ng --voices and espeak-ng --voices=variant")


def plan(identity: str, text: str, path: str, choices: tuple[str, ...], seed: int) -> Utterance:
    """Voice, speed, pitch, level and noise of one utterance, drawn from (seed, id) alone."""
    rng = random.Random(f"speech {seed} {identity}")
    return Utterance(
        id=identity,
        text=text,
        path=path,
        voice=rng.choice(choices),
        speed=rng.randint(160, 205),
        pitch=rng.randint(30, 70),
        peak=rng.uniform(0.5, 0.9),
        snr=rng.uniform(30, 45),
        noise_seed=rng.getrandbits(32),
    )


def plan_target(identity: str, text: str, path: str, seed: int) -> Utterance:
    """The translation of a sentence in the one target voice; only the noise depends on (seed, id)."""
    return Utterance(
        id=identity,
        text=text,
        path=path,
        voice=TARGET_VOICE,
        speed=TARGET_SPEED,
        pitch=TARGET_PITCH,
        peak=TARGET_PEAK,
        snr=TARGET_SNR,
        noise_seed=random.Random(f"target {seed} {identity}").getrandbits(32),
        melody=0,
    )


def synthesize(utterance: Utterance, program: str = "espeak-ng") -> np.ndarray:
    """float32 samples at 16 kHz, silence of 0.1 s before and 0.4 s after the speech."""
    command = [
        program,
        "-v",
        utterance.voice,
        "-s",
        str(utterance.speed),
        "-p",
        str(utterance.pitch),
        "-b",
        "1",
        "--stdin",
        "--stdout",
    ]
    text = utterance.text
    if utterance.melody != 100:
        command.append("-m")
        text = f"<speak><prosody range='{utterance.melody}%'>{escape(text)}</prosody></speak>"
    result = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if result.returncode != 0 or len(result.stdout) <= 44:
        reason = result.stderr.decode(errors="replace").strip() or f"exit status {result.returncode}, no audio"
        raise RuntimeError(f"espeak-ng could not speak {utterance.id} with the voice {utterance.voice!r}: {reason}")
    samples, rate = soundfile.read(io.BytesIO(result.stdout), dtype="float32")
    return finish(samples, rate, utterance)


def finish(samples: np.ndarray, rate: int, utterance: Utterance) -> np.ndarray:
    """Trims, resamples, levels, pads and adds the light noise."""
    loud = np.flatnonzero(np.abs(samples) > 1e-3 * max(float(np.abs(samples).max(initial=0.0)), 1e-9))
    if loud.size == 0:
        raise RuntimeError(f"espeak-ng gave silence for {utterance.id}: {utterance.text!r}")
    speech = soxr.resample(samples[loud[0] : loud[-1] + 1], rate, SAMPLE_RATE, quality="HQ")
    if utterance.bands or utterance.lowpass:
        speech = equalise(speech, utterance.bands, utterance.lowpass)
    speech = speech * (utterance.peak / float(np.abs(speech).max()))
    padded = np.pad(speech, (int(LEADING_SECONDS * SAMPLE_RATE), int(TRAILING_SECONDS * SAMPLE_RATE)))
    # Never digital silence: its log energies lie so far below speech that global CMVN would flatten the speech itself.
    power = float(np.mean(speech**2))
    noise = coloured_noise(utterance.noise_seed, padded.size, utterance.noise_slope)
    padded = padded + noise * (power / 10 ** (utterance.snr / 10)) ** 0.5
    return np.clip(padded, -1.0, 1.0).astype(np.float32)


def equalise(samples: np.ndarray, bands: tuple[float, ...], lowpass: float) -> np.ndarray:
    """Samples at 16 kHz with the gains `bands` (dB at BANDS, linear between them in octaves) and the fade `lowpass`."""
    if bands and len(bands) != len(BANDS):
        raise ValueError(f"equalise: {len(BANDS)} gains are needed, got {len(bands)}")
    frequencies = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, BANDS[0]))
    gains = np.interp(octaves, np.log2(BANDS), bands) if bands else np.zeros_like(octaves)
    if lowpass:
        gains = gains - 24.0 * np.maximum(octaves - np.log2(lowpass), 0.0)
    return np.fft.irfft(np.fft.rfft(samples) * 10 ** (gains / 20), samples.size)


def coloured_noise(seed: int, size: int, slope: float) -> np.ndarray:
    """`size` samples of noise of power 1 whose spectrum falls by `slope` dB an octave; 0 is white."""
    noise = np.random.default_rng(seed).standard_normal(size)
    if slope == 0.0:
        return noise
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 50.0))
    noise = np.fft.irfft(np.fft.rfft(noise) * 10 ** (slope * octaves / 20), size)
    return noise / np.sqrt(np.mean(noise**2))


def seconds_of(path: Path) -> float | None:
    """Length of a finished file in seconds; None where it is missing or broken."""
    if not path.exists():
        return None
    try:
        information = soundfile.info(str(path))
    except RuntimeError:
        return None
    return information.frames / information.samplerate if information.frames else None


def speak_to_file(job: tuple[Utterance, str]) -> tuple[str, float]:
    """Speaks one utterance under the folder given; returns its path and seconds. A finished file is kept.

    The file is written beside its place and renamed, so that a file that exists is whole.
    """
    utterance, folder = job
    path = Path(folder) / utterance.path
    existing = seconds_of(path)
    if existing is not None:
        return utterance.path, existing
    samples = synthesize(utterance)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    soundfile.write(str(temporary), samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    os.replace(temporary, path)
    return utterance.path, samples.size / SAMPLE_RATE
