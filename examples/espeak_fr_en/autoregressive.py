#!/usr/bin/env python3
"""Compares the example's model with an autoregressive one: quality of the units and seconds an utterance, offline.

python examples/espeak_fr_en/autoregressive.py UNITS.tsv --checkpoint S2UT.pt --data S2UT_DATA --bundle BUNDLE

S2UT.pt is fairseq's speech-to-unit transformer, trained by configs/tiny_espeak_s2ut.yaml on S2UT_DATA
(scripts/s2ut_data.py); UNITS.tsv the corpus manifest with the units of both. Both get the same features, one utterance
at a time and in turn; seconds are from features to units. The units of both go through the bundle's vocoder and are
transcribed by the example's recogniser.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nast_s2x.benchmarks.autoregressive import autoregressive_units, one_pass_units
from nast_s2x.cli.intelligibility import load_parts
from nast_s2x.evaluation import intelligibility
from nast_s2x.progress import progress_bar

if TYPE_CHECKING:
    from nast_s2x.inference.system import System

RECOGNISER = Path(__file__).resolve().parent / "recogniser"
MAX_UNITS = 300
"""No sentence of the corpus has so many: a hypothesis that does not end is cut there."""
Decoder = Callable[[Tensor], list[int]]  # features (1, F, bins), normalised, to unit codes


@dataclass(frozen=True)
class Row:
    """One line of the table; figures as of `nast-s2x intelligibility`, ``seconds`` of computing an utterance."""

    model: str
    unit_bleu: float
    wer: float
    asr_bleu: float
    text_bleu: float | None
    seconds: float
    parameters: int


@dataclass
class Candidate:
    """A model and decoding method under comparison, with its results.

    Attributes:
        decode: features to unit codes.
        parameters: of the model.
        seconds: computing time of each utterance.
        units: unit codes of each utterance.
    """

    name: str
    decode: Decoder
    parameters: int
    seconds: list[float] = field(default_factory=list)
    units: list[list[int]] = field(default_factory=list)

    def run(self, fbank: Tensor) -> None:
        """Decode one utterance; keep its units and computing time."""
        begun = time.perf_counter()
        units = self.decode(fbank)
        self.seconds.append(time.perf_counter() - begun)
        self.units.append(units)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="manifest with units")
    parser.add_argument("--checkpoint", type=Path, required=True, help="trained s2ut_transformer")
    parser.add_argument("--data", type=Path, required=True, help="its data folder")
    parser.add_argument("--bundle", type=Path, required=True, help="speech-to-speech bundle")
    parser.add_argument("--beams", default="1,10", help="beam sizes of the autoregressive model (default 1,10)")
    parser.add_argument("--split", default="test", help="rows to take (default test)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--recogniser", default=str(RECOGNISER), help="default: the committed bundle")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bars")
    return parser.parse_args(arguments)


def load_baseline(checkpoint: Path, data: Path) -> nn.Module:
    """fairseq's model of a checkpoint, without the auxiliary output that only training uses.

    Raises:
        FileNotFoundError: no such checkpoint or data folder.
    """
    from nast_s2x.tasks import register

    register()  # what fairseq's checkpoints hold is read as data from here on
    for path in (checkpoint, data / "config.yaml"):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
    from fairseq import checkpoint_utils

    models, _, _ = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], {"data": str(data)})
    model = models[0].eval()
    model.multitask_decoders = nn.ModuleDict()
    return model


def baseline_decoder(model: nn.Module, beam: int) -> Decoder:
    """Units by fairseq's generator, which finds the length by itself."""
    from fairseq.sequence_generator import SequenceGenerator

    generator = SequenceGenerator([model], model.decoder.dictionary, beam_size=beam, max_len_a=0, max_len_b=MAX_UNITS)
    return lambda fbank: autoregressive_units(model, generator, fbank)[0]


def bundle_decoder(bundle: System) -> Decoder:
    """Units by one offline pass."""
    from nast_s2x.labels import RepeatFilter

    policy = bundle.policy("offline")

    def decode(fbank: Tensor) -> list[int]:
        return RepeatFilter(bundle.units.drop_repeats).push(one_pass_units(bundle.model, fbank, policy)[0])

    return decode


def decode_all(candidates: Sequence[Candidate], bundle: System, sentences: Sequence[Any], progress: bool) -> None:
    """Decode every sentence with every candidate, in turn."""
    from nast_s2x.frontend.fbank import fbank

    with torch.inference_mode(), progress_bar(len(sentences), "translating", show=progress) as bar:
        for place, sentence in enumerate(sentences):
            features = bundle.normalize(fbank(sentence.audio.samples()))[None]
            for candidate in candidates:
                if not place:
                    candidate.decode(features)  # the first call sets up what later ones reuse
                candidate.run(features)
            bar.update()


def measure(arguments: argparse.Namespace) -> list[Row]:
    """The table's lines: the bundle, then the baseline at each beam size."""
    from nast_s2x.recognisers import open_recogniser
    from nast_s2x.vocoder.offline import synthesize

    torch.set_num_threads(arguments.threads)
    recogniser = open_recogniser(arguments.recogniser, language="en")
    sentences, unit_hash = intelligibility.read_sentences(arguments.manifest, arguments.split, arguments.limit)
    progress = not arguments.no_progress
    speakers = argparse.Namespace(bundle=arguments.bundle, vocoder=None)
    vocoder, bundle = load_parts(speakers, unit_hash)
    baseline = load_baseline(arguments.checkpoint, arguments.data)
    candidates = [Candidate("one pass (bundle)", bundle_decoder(bundle), _size(bundle.model))]
    for beam in map(int, arguments.beams.split(",")):
        candidates.append(Candidate(f"autoregressive, beam {beam}", baseline_decoder(baseline, beam), _size(baseline)))
    decode_all(candidates, bundle, sentences, progress)
    texts = intelligibility.translate_all(bundle, sentences, "offline", progress).texts
    rows = []
    for candidate in candidates:
        waveforms = [synthesize(vocoder, [units])[0] for units in candidate.units]
        transcripts = [transcript.text for transcript in recogniser.transcribe(waveforms, progress)]
        speech = intelligibility.Speech(
            candidate.name, waveforms, texts if not rows else [""] * len(texts), candidate.units
        )
        result = intelligibility.score_speech(speech, transcripts, sentences)
        rows.append(
            Row(
                model=candidate.name,
                unit_bleu=result.unit_bleu,
                wer=result.wer,
                asr_bleu=result.asr_bleu,
                text_bleu=None if rows else result.text_bleu,
                seconds=statistics.mean(candidate.seconds),
                parameters=candidate.parameters,
            )
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown; the last column is the computing time as a multiple of that of the first row."""
    lines = [
        "| model | parameters | unit BLEU | WER | ASR-BLEU | text BLEU | seconds an utterance | one pass is faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        text = "" if row.text_bleu is None else f"{row.text_bleu:.1f}"
        lines.append(
            f"| {row.model} | {row.parameters / 1e6:.1f}M | {row.unit_bleu:.1f} | {row.wer:.1f} | {row.asr_bleu:.1f} | "
            f"{text} | {row.seconds:.3f} | {row.seconds / rows[0].seconds:.1f}x |"
        )
    return "\n".join(lines)


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    args = parse_arguments(arguments)
    try:
        rows = measure(args)
    except (ValueError, OSError) as error:
        print(f"autoregressive.py: error: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
