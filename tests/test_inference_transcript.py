"""The transcript of the source, from the recognition head: streams, engines, offline, the command."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_system import make_bundle, make_signal

from nast_s2x.chunking import ChunkPolicy
from nast_s2x.cli.main import main
from nast_s2x.errors import ConfigError
from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.fbank import fbank
from nast_s2x.inference import load_system, save_bundle
from nast_s2x.inference.detokenizer import join_sentences
from nast_s2x.inference.engine import BatchedEngine
from nast_s2x.inference.offline import translate_batch, translate_samples
from nast_s2x.inference.streaming import Emission, TranslationStream
from nast_s2x.inference.system import System
from nast_s2x.network.decoder import SlotDecoder

SIGNAL = make_signal(9.0, seed=12)
POLICIES = (
    ChunkPolicy(320),
    ChunkPolicy(320, left_chunks=2),
    ChunkPolicy(160, 120, wait_chunks=2),
    ChunkPolicy(160, 320, wait_chunks=1, left_chunks=1),
    ChunkPolicy(None),
)
EXAMPLE = Path(__file__).parents[1] / "examples" / "espeak_fr_en"


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> System:
    return centred(make_bundle(tmp_path_factory.mktemp("exact"), dtype=torch.float64))


def centred(system: System) -> System:
    """Standardise the encoder frames over a recording, so that the labels of the recognition head vary."""
    norm = system.model.encoder.layers[-1].final_layer_norm
    features = system.normalize(fbank(make_signal(6.0, seed=99)))[None]
    with torch.no_grad():
        std, mean = torch.std_mean(system.model(features, None, ChunkPolicy(320)).encoder_out, (0, 1))
        norm.weight /= std
        norm.bias.copy_((norm.bias - mean) / std)
    return system


def stream(system: System, policy: ChunkPolicy, samples: np.ndarray, cuts: list[int]) -> list[Emission]:
    made = TranslationStream(system, policy, with_units=False, with_transcript=True)
    emissions = [emission for piece in np.split(samples, cuts) for emission in made.push(piece)]
    return [*emissions, *made.push([], final=True)]


def heard(emissions: list[Emission]) -> str:
    return "".join(emission.source_delta for emission in emissions)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("length", [300, 5000, 33333, len(SIGNAL)])
def test_any_cut_gives_the_offline_transcript(exact: System, policy: ChunkPolicy, length: int) -> None:
    samples, random = SIGNAL[:length], np.random.default_rng(length)
    offline = translate_samples(exact, samples, policy=policy, with_transcript=True)
    whole = stream(exact, policy, samples, [])
    if length == len(SIGNAL):
        assert len(set(offline.source_text.split())) > 8  # the head says something
    for _ in range(3):
        cuts = np.sort(random.integers(0, length, 8)).tolist()
        emissions = stream(exact, policy, samples, cuts)
        assert heard(emissions) == offline.source_text
        words = [(emission.chunk, emission.source_text) for emission in emissions if emission.source_text]
        assert words == [(emission.chunk, emission.source_text) for emission in whole if emission.source_text]
        assert "".join(emission.delta for emission in emissions) == offline.text


def test_words_come_with_the_chunk_and_not_at_the_end(exact: System) -> None:
    emissions = stream(exact, ChunkPolicy(160, 120, wait_chunks=2), SIGNAL, [])
    assert sum(bool(emission.source_text) for emission in emissions) > len(emissions) // 4
    assert emissions[0].source_text  # with two chunks of waiting, the words of the first three chunks are known


def test_no_word_depends_on_later_audio(exact: System) -> None:
    policy, other = ChunkPolicy(320), SIGNAL.copy()
    other[60000:] = make_signal(9.0, seed=13)[60000:]
    first, second = (stream(exact, policy, samples, []) for samples in (SIGNAL, other))
    early = [emission.source_text for emission in first if emission.source_ms <= 3750]
    assert early == [emission.source_text for emission in second[: len(early)]] and len(early) > 8
    assert heard(first) != heard(second)


def test_segments_of_a_long_source(tmp_path: Path) -> None:
    short = centred(make_bundle(tmp_path, dtype=torch.float64, seconds=7))
    emissions = stream(short, ChunkPolicy(320), SIGNAL, [1000, 50000])
    made = TranslationStream(short, ChunkPolicy(320), with_transcript=True)
    made.push(SIGNAL, final=True)
    edges = [0, *(cut.frame for cut in made.cuts), None]
    features = fbank(SIGNAL)
    parts = [features[start:stop] for start, stop in zip(edges, edges[1:])]
    assert len(parts) > 1
    texts = [translate_batch(short, [part], ChunkPolicy(320), with_transcript=True)[0].source_text for part in parts]
    assert heard(emissions) == join_sentences(texts)


class SharedEngine(BatchedEngine):
    """An engine with one state for all streams, as on a GPU."""

    def __init__(self, system: System, slots: int, policy: ChunkPolicy) -> None:
        super().__init__(system, slots, policy, with_units=False, with_transcript=True)
        self._shared = system.model.init_state(self.policy, slots)


@pytest.mark.parametrize("shared", [False, True])
def test_an_engine_gives_each_stream_its_own(exact: System, shared: bool) -> None:
    policy = ChunkPolicy(160, 120, wait_chunks=1, left_chunks=1)
    engine = (
        SharedEngine(exact, 3, policy)
        if shared
        else BatchedEngine(exact, 3, policy, with_units=False, with_transcript=True)
    )
    sources = [SIGNAL[:50000], SIGNAL[20000:90000], SIGNAL[7000:7500]]
    streams = [engine.open() for _ in sources]
    got: dict[object, list[Emission]] = {made: [] for made in streams}
    for start in range(0, 70000, 3000):
        for made, samples in zip(streams, sources):
            if start < len(samples):
                made.push(samples[start : start + 3000], final=start + 3000 >= len(samples))
        for made, emission in engine.step():
            got[made].append(emission)
    while len(engine):
        for made, emission in engine.step():
            got[made].append(emission)
    for made, samples in zip(streams, sources):
        assert heard(got[made]) == heard(stream(exact, policy, samples, []))


def test_nothing_is_computed_that_was_not_asked_for(exact: System, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = SlotDecoder.logits
    monkeypatch.setattr(SlotDecoder, "logits", lambda self, x: sizes.append(x.size(1)) or original(self, x))
    for with_transcript, per_step in ((False, [4]), (True, [4, 8])):
        sizes.clear()
        made = TranslationStream(exact, ChunkPolicy(320), with_units=False, with_transcript=with_transcript)
        emissions = made.push(SIGNAL[:40000])
        assert sizes == per_step * len(emissions) and any(e.source_text for e in emissions) == with_transcript


def test_a_head_that_was_not_trained_is_refused(exact: System, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert exact.has_recognition is None  # not recorded
    untrained = replace(exact, info=replace(exact.info, origin={"asr_weight": 0.0}))
    assert untrained.has_recognition is False
    for make in (
        lambda: untrained.stream(chunk_ms=320, with_transcript=True),
        lambda: untrained.translate(SIGNAL, with_transcript=True),
        lambda: BatchedEngine(untrained, 1, ChunkPolicy(320), with_transcript=True),
    ):
        with pytest.raises(ConfigError, match="no source transcript.*--asr-weight 0"):
            make()
    folder, recording = save_bundle(untrained, tmp_path / "bundle"), EXAMPLE / "recordings" / "test_00002.flac"
    assert load_system(folder).has_recognition is False
    assert "source transcript (`--transcript`): no" in (folder / "README.md").read_text()
    assert main(["translate", str(recording), "-m", str(folder), "--transcript"]) == 1
    assert "no source transcript" in capsys.readouterr().err
    folder = save_bundle(exact, tmp_path / "unknown")
    assert main(["translate", str(recording), "-m", str(folder), "--transcript"]) == 0
    assert "not recorded whether the recognition head" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bundle", "speech_bundle"])
def test_the_examples_know_french(name: str) -> None:
    from nast_s2x.metrics.quality import word_error_rate

    system = load_system(EXAMPLE / name)
    assert system.has_recognition
    with (EXAMPLE / "recordings" / "manifest.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:10]
    policy = system.policy(320)
    emissions = [stream(system, policy, load_audio(EXAMPLE / "recordings" / row["audio"]), []) for row in rows]
    assert word_error_rate([heard(item) for item in emissions], [row["src_text"] for row in rows]) < 5


def test_the_command_prints_both(capsys: pytest.CaptureFixture[str]) -> None:
    recording = str(EXAMPLE / "recordings" / "test_00002.flac")
    arguments = ["translate", recording, "-m", str(EXAMPLE / "bundle"), "--chunk-ms", "320"]
    assert main([*arguments, "--json", "--transcript"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    source = "la couverture que thomas a perdue est sous le canapé"
    assert " ".join(row["source_text"] for row in rows if row["source_text"]) == source
    assert main([*arguments, "--transcript"]) == 0
    out, err = capsys.readouterr()
    assert (
        out.splitlines()[-1] == f"= {source} | the blanket that thomas lost is under the sofa" and "recorded" not in err
    )
    assert main([*arguments, "--json"]) == 0
    assert all("source_text" not in json.loads(line) for line in capsys.readouterr().out.splitlines())
