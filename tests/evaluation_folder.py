"""Small evaluations with made-up figures, in the formats that reports and comparisons read."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nast_s2x.frontend.audio import write_wav

REFERENCES = (
    "the old bridge is closed today",
    "my sister buys three red apples",
    "we will meet at the station & go <home>",
    "nobody knows the name of the river",
)
SOURCE_MS = 2400.0


def tone(ms: float, pitch: float) -> np.ndarray:
    """A swelling tone, (n,) at 16 kHz."""
    time = np.arange(round(16 * ms)) / 16000
    return (0.4 * np.sin(2 * np.pi * pitch * time) * np.abs(np.sin(2 * np.pi * 1.5 * time))).astype(np.float32)


def text_line(index: int, words: Sequence[str], chunk_ms: float, folder: Path) -> dict:
    """A line of a log: one word a chunk from the second chunk on, the rest at the end of the source."""
    delays = [min(SOURCE_MS, chunk_ms * (number + 2) + 15) for number in range(len(words))]
    emissions = [
        {"chunk": number, "source_ms": delay, "written_ms": delay, "text": word, "units": [number, number + 1]}
        for number, (delay, word) in enumerate(zip(delays, words))
    ]
    return {
        "index": index,
        "id": f"sentence_{index}",
        "prediction": " ".join(words),
        "delays": delays,
        "elapsed": [delay + 20 * (number + 1) for number, delay in enumerate(delays)],
        "prediction_length": len(words),
        "reference": REFERENCES[index],
        "source": "",
        "audio": str(folder / "recordings" / f"{index}.wav"),
        "source_length": SOURCE_MS,
        "emissions": emissions,
        "push_ms": [20.0] * len(words),
        "chunk_ms": [20.0] * len(words),
        "units": None,
    }


def speech_line(index: int, words: Sequence[str], chunk_ms: float, folder: Path, chunk: str) -> dict:
    """The same with 200 ms of speech a word; writes the sound file, with silence where a piece was late."""
    line = text_line(index, words, chunk_ms, folder)
    pieces, end = [], 0.0
    for number, delay in enumerate(line["delays"]):
        if number and delay > end:
            pieces.append(np.zeros(int(16000 * (delay - end) / 1000), np.float32))
        pieces.append(tone(200, 200 + 40 * number))
        end = max(end, delay) + 200
    name = f"wavs/{index}_pred.wav"
    if pieces:
        write_wav(folder / chunk / name, np.concatenate(pieces))
    return line | {"prediction": name, "durations": [200.0] * len(words), "prediction_offset": line["delays"][:1]}


def make_evaluation(
    folder: Path,
    target_type: str = "text",
    outputs: Sequence[str] = REFERENCES,
    chunks: Sequence[str] = ("160", "320", "offline"),
    recogniser: str | None = "bundle:ears",
) -> Path:
    """Write a scored evaluation of :data:`REFERENCES`; scores fall with the chunk size, so that curves have a slope.

    Args:
        outputs: text of each translation, one for each reference; "" for an empty one.
        recogniser: name of the recogniser of speech; ``None``: no transcripts, no ASR-BLEU.
    """
    for index in range(len(outputs)):
        write_wav(folder / "recordings" / f"{index}.wav", tone(SOURCE_MS, 150 + 30 * index))
    rows = []
    for chunk in chunks:
        chunk_ms = SOURCE_MS if chunk == "offline" else float(chunk)
        (folder / chunk).mkdir(parents=True, exist_ok=True)
        lines, scores = [], []
        for index, output in enumerate(outputs):
            words = output.split()
            line = text_line(index, words, chunk_ms, folder)
            if target_type == "speech":
                line = speech_line(index, words, chunk_ms, folder, chunk)
            lines.append(line)
            transcript = output if target_type == "speech" and recogniser else None
            latency = {"StartOffset": line["delays"][0] if words else None, "AL": chunk_ms if words else None}
            bleu = 100.0 - 20 * index if words else 0.0
            entry = {"index": index, "id": line["id"], "text": output, "transcript": transcript, "BLEU": bleu}
            scores.append(entry | {"transcript_silence": transcript, "latency": latency, "gaps": []})
        write_lines(folder / chunk / "instances.log", lines)
        write_lines(folder / chunk / "utterances.jsonl", scores)
        empty = sum(not output for output in outputs)
        rows.append(make_row(chunk, target_type, len(outputs), empty, recogniser))
    settings = {
        "format": 1,
        "model": {"path": "/models/tiny", "sha256": "ab" * 32, "source_lang": "fr", "target_lang": "en"},
        "source": {"path": "source.txt", "sha256": "cd" * 32},
        "target": {"path": "target.txt", "sha256": "ef" * 32},
        "num_utterances": len(outputs),
        "target_type": target_type,
        "chunks": list(chunks),
        "segment_ms": 40,
        "device": "cpu",
        "dtype": "fp32",
        "threads": 1,
        "versions": {"nast_s2x": "1", "simuleval": "1.1.4", "torch": "2"},
    }
    scores = {"format": 1, "target_type": target_type, "settings": settings, "rows": rows}
    scores["recogniser"] = recogniser if target_type == "speech" else None
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def make_row(chunk: str, target_type: str, utterances: int, empty: int, recogniser: str | None) -> dict:
    """Made-up figures of a chunk size."""
    size = 2400 if chunk == "offline" else int(chunk)
    speech = target_type == "speech"
    has_transcripts = speech and recogniser is not None
    quality = {"BLEU": 20 + size / 100, "chrF": 50.25, "unit_BLEU": None}
    quality |= {
        name: 15 + size / 100 if has_transcripts else None for name in ("ASR_BLEU", "ASR_BLEU_silence", "ASR_WER")
    }
    latency = {"StartOffset": 2.0 * size + 15, "EndOffset": 100.0, "NumChunks": 6.5}
    names = ("AL_words", "LAAL_words", "AL_chunks_vs_words") if speech else ("AL", "LAAL")
    latency |= {name: 1.5 * size for name in names if has_transcripts or not speech or name == "AL_chunks_vs_words"}
    latency |= {f"{name}_CA": value + 30 for name, value in latency.items()}
    if speech:
        latency |= {"GapNum": 2.0, "GapMean": 75.0, "GapSum": 150.0}
    cost = {"chunk_ms_p50": 20.0, "chunk_ms_p95": 31.0, "real_time_factor": 0.08, "compute_s": 0.8, "audio_s": 9.6}
    return {
        "chunk": chunk,
        "chunk_ms": None if chunk == "offline" else size,
        "utterances": utterances,
        "empty": empty,
        "quality": quality,
        "signatures": {"BLEU": "nrefs:1|case:mixed|tok:13a"},
        "latency": latency,
        "cost": cost,
    }


def write_lines(path: Path, entries: Sequence[dict]) -> None:
    """Write one JSON line an entry."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def evaluator_flags(output: Path, segment_ms: int, target_type: str) -> Namespace:
    """Flags of SimulEval's evaluator for one utterance, without scoring."""
    return Namespace(
        output=str(output),
        wavs=output / "wavs",
        source_type="speech",
        target_type=target_type,
        source_segment_size=segment_ms,
        eval_latency_unit="word",
        continue_unfinished=False,
        score_only=False,
        no_scoring=True,
        no_progress_bar=True,
        end_index=1,
    )
