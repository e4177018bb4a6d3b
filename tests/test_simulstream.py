"""The speech processor inside simulstream 1.0: its inference command, servers, clients, wrapper and scorers.

``bash scripts/install.sh simulstream`` installs it. Its quality and latency scorers import mweralign, which is under
the GPL and in no extra of this project; their test is skipped without it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import logging
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from random_system import CHINESE, make_bundle, make_signal

for _name in ("simulstream", "librosa", "websockets"):
    pytest.importorskip(_name, reason="needs simulstream: bash scripts/install.sh simulstream")

import websockets  # noqa: E402
from simulstream.client import wav_reader_client  # noqa: E402
from simulstream.config import yaml_config  # noqa: E402
from simulstream.metrics.logger import METRICS_LOGGER  # noqa: E402
from simulstream.metrics.readers import LogReader  # noqa: E402
from simulstream.server import websocket_server  # noqa: E402
from simulstream.server.message_processor import MessageProcessor  # noqa: E402
from simulstream.server.speech_processors import build_speech_processor  # noqa: E402
from simulstream.server.speech_processors.remote.http_proxy_speech_processor import (  # noqa: E402
    HttpProxySpeechProcessor,
)
from test_pages import commands  # noqa: E402

from nast_s2x.agents import simulstream as adapter  # noqa: E402
from nast_s2x.agents.simulstream import NastSpeechProcessor, Settings, shared_system  # noqa: E402
from nast_s2x.cli.main import main as nast_s2x_command  # noqa: E402
from nast_s2x.errors import ConfigError, NastError  # noqa: E402
from nast_s2x.frontend.audio import load_audio, write_wav  # noqa: E402
from nast_s2x.inference.bundle import save_bundle  # noqa: E402
from nast_s2x.inference.system import System  # noqa: E402
from nast_s2x.labels import TextLabels  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs" / "simulstream"
RECORDINGS = ROOT / "examples" / "espeak_fr_en" / "recordings"
BUNDLE = ROOT / "examples" / "espeak_fr_en" / "bundle"
NAMES = ("test_00000", "test_00001", "test_00002")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Configurations name the bundle from the top of the repository; simulstream's log is closed after each test."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(METRICS_LOGGER, "level", logging.INFO)  # under pytest, basicConfig does not set it
    yield
    for handler in METRICS_LOGGER.handlers:
        handler.close()
    METRICS_LOGGER.handlers.clear()


@pytest.fixture(scope="module")
def wavs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings as 16-bit WAV and their list ``wavs.txt``."""
    folder = tmp_path_factory.mktemp("wavs")
    for name in NAMES:
        write_wav(folder / f"{name}.wav", load_audio(RECORDINGS / f"{name}.flac"))
    (folder / "wavs.txt").write_text("".join(f"{name}.wav\n" for name in NAMES))
    return folder


@pytest.fixture(scope="module")
def expected(wavs: Path) -> dict[str, str]:
    """What ``nast-s2x translate`` prints for each recording."""
    words = ["translate", *(str(wavs / f"{name}.wav") for name in NAMES), "--model", str(BUNDLE), "--chunk-ms", "320"]
    with contextlib.redirect_stdout(PrintedText()) as printed:
        assert nast_s2x_command(words) == 0
    texts = [line.removeprefix("= ") for line in printed.text.splitlines() if line.startswith("= ")]
    assert len(texts) == len(NAMES) and all(len(text.split()) > 5 for text in texts)
    return dict(zip(NAMES, texts))


class PrintedText:
    """A stream for print."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def run_command(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a console command of an installed package in this process; returns what it printed."""
    words = shlex.split(command)
    (entry,) = metadata.entry_points(group="console_scripts", name=words[0])
    monkeypatch.setattr(sys, "argv", words)
    with contextlib.redirect_stdout(PrintedText()) as printed:
        entry.load()()
    return printed.text


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def changed(name: str, folder: Path, **values: Any) -> Path:
    """A configuration of the repository with other values, as a file in ``folder``."""
    content = yaml.safe_load((CONFIGS / name).read_text()) | values
    (folder / name).write_text(yaml.safe_dump(content))
    return folder / name


def settings_of(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(type="nast_s2x.agents.simulstream.NastSpeechProcessor", **values)


def texts_of(log: Path, config: Path = CONFIGS / "processor.yaml") -> dict[str, str]:
    """Texts of a log as simulstream's scorers read it; nothing may have been deleted."""
    assert all(not json.loads(line).get("deleted_tokens") for line in log.read_text().splitlines())
    return dict(LogReader(yaml_config(str(config)), str(log)).final_outputs())


# --- simulstream_inference ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log(wavs: Path, expected: dict[str, str]) -> Path:
    """Log of ``simulstream_inference`` with the example configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(METRICS_LOGGER, "level", logging.INFO)
        run_command(
            f"simulstream_inference --speech-processor-config {CONFIGS / 'processor.yaml'} --wav-list-file "
            f"{wavs / 'wavs.txt'} --src-lang fr --tgt-lang en --metrics-log-file {wavs / 'metrics.jsonl'}",
            patch,
        )
    return wavs / "metrics.jsonl"


def test_inference_command(log: Path, expected: dict[str, str], wavs: Path) -> None:
    assert texts_of(log) == expected
    system = shared_system(Settings(str(BUNDLE)))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for number, name in enumerate(NAMES):
        # Each line has the pieces of the chunks that the audio up to it completes, no later ones and no earlier ones.
        samples, stream = load_audio(wavs / f"{name}.wav"), system.stream(chunk_ms=320, with_units=False)
        outputs = [line for line in lines if line.get("id") == number and "generated_tokens" in line]
        begin = 0
        for place, line in enumerate(outputs):
            end = round(line["total_audio_processed"] * 16000)
            made = stream.push(samples[begin:end], 16000, final=place == len(outputs) - 1)
            pieces = system.text.pieces(token for emission in made for token in emission.tokens)
            assert line["generated_tokens"] == pieces
            begin = end
        assert begin == len(samples) and len([line for line in outputs if line["generated_tokens"]]) > 4


def test_delays_of_words(log: Path, wavs: Path) -> None:
    """A word's delay is the first multiple of ``speech_chunk_size`` at which its chunk is complete."""
    config = yaml_config(str(CONFIGS / "processor.yaml"))
    outputs = LogReader(config, str(log), latency_unit="word").final_outputs_and_latencies()
    geometry = shared_system(Settings(str(BUNDLE))).model.geometry(shared_system(Settings(str(BUNDLE))).policy(320))
    for name, output in outputs.items():
        seconds = len(load_audio(wavs / f"{name}.wav")) / 16000
        times = [geometry.emission_ms(chunk) / 1000 for chunk in range(20)]
        possible = {round(min(seconds, 0.1 * np.ceil(time / 0.1)), 6) for time in times}
        assert len(output.ideal_delays) == len(output.final_text.split())
        assert {round(delay, 6) for delay in output.ideal_delays} <= possible
        assert output.ideal_delays == sorted(output.ideal_delays) and output.ideal_delays[0] < 1.5


@pytest.mark.parametrize("sizes", [(5120,), (1, 1600, 6400), (0, 77, 16000), (10**6,)])
def test_any_pieces(sizes: tuple[int, ...], expected: dict[str, str], wavs: Path) -> None:
    """The text does not depend on how the host cuts the audio; the last pieces come with the end."""
    processor = build_speech_processor(yaml_config(str(CONFIGS / "processor.yaml")))
    samples = load_audio(wavs / f"{NAMES[2]}.wav")
    for _ in range(2):  # the second source after `clear`, as if it were the first
        outputs, begin, place = [], 0, 0
        while begin < len(samples):
            size = sizes[place % len(sizes)]
            outputs.append(processor.process_chunk(samples[begin : begin + size]))
            begin, place = begin + size, place + 1
        outputs.append(processor.end_of_stream())
        tokens = [token for output in outputs for token in output.new_tokens]
        assert "".join(output.new_string for output in outputs) == processor.tokens_to_string(tokens)
        assert all(output.deleted_tokens == [] and output.deleted_string == "" for output in outputs)
        assert processor.tokens_to_string(tokens) == f" {expected[NAMES[2]]}"
        processor.clear()
    processor.clear()  # a client that left
    assert processor.end_of_stream().new_tokens == []


def test_segments_and_the_end(tmp_path: Path) -> None:
    """A model whose positions end: each segment begins with a new word; the last two outputs are merged."""
    system = make_bundle(tmp_path / "system", units=False, seconds=7)
    # The random model begins each segment with the piece of a lone space: here it is a letter inside of words.
    dictionary = tmp_path / "system" / "dict.txt"
    dictionary.write_text(dictionary.read_text().replace("\n\u2581 1\n", "\nq 1\n"))
    system = replace(system, text=TextLabels.load(dictionary, tmp_path / "system" / "spm.model"))
    save_bundle(system, tmp_path / "bundle")
    processor = build_speech_processor(settings_of(model=str(tmp_path / "bundle"), chunk_ms=320))
    samples = np.round(make_signal(15.0, seed=4) * 32768).clip(-32768, 32767).astype("<i2")
    stream = system.stream(chunk_ms=320, with_units=False)
    wanted = stream.push(samples, 16000) + stream.push([], final=True)
    assert {emission.segment for emission in wanted} >= {0, 1}
    (first, *_) = (emission.tokens for emission in wanted if emission.segment == 1 and emission.tokens)
    assert not system.text.starts_word(first[0])
    text = "".join(emission.delta for emission in wanted)
    host = MessageProcessor(1, processor)
    parts = [host.process_speech(samples[begin : begin + 3000].tobytes()) for begin in range(0, len(samples), 3000)]
    parts.append(host.end_of_stream())
    assert "".join(part.new_string for part in parts if part is not None) == f" {text}" and len(text) > 50


def test_chinese_and_characters_spelled_in_bytes(tmp_path: Path) -> None:
    options = {"sentences": CHINESE, "size": 360, "byte_fallback": True, "units": False, "seconds": 7}
    save_bundle(make_bundle(tmp_path / "system", language="zh", **options), tmp_path / "bundle")
    processor = build_speech_processor(settings_of(model=str(tmp_path / "bundle"), chunk_ms=320))
    samples = make_signal(10.0, seed=4)
    outputs = [processor.process_chunk(samples[begin : begin + 3000]) for begin in range(0, len(samples), 3000)]
    outputs.append(processor.end_of_stream())
    tokens = [token for output in outputs for token in output.new_tokens]
    text = processor.system.translate(samples, chunk_ms=320).text
    assert "".join(output.new_string for output in outputs) == processor.tokens_to_string(tokens) == f" {text}"
    assert sum(bool(output.new_string) for output in outputs) >= 10 and "<0x" not in text
    assert sum("\u4e00" <= char <= "\u9fff" for char in text) >= 3


# --- configurations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "`model` is missing: it must be a bundle folder or a checkpoint file"),
        ({"model": 3}, "`model` must be text, but is 3"),
        ({"chunk-ms": 320}, "`chunk-ms` is no key of this speech processor; its keys: chunk_ms, data_dir, device"),
        ({"chunk_ms": 100}, "must be a multiple of 80"),
        ({"chunk_ms": [320]}, "320"),
        ({"lookahead_ms": "x"}, "lookahead_ms"),
        ({"wait_chunks": 1.5}, "wait_chunks"),
        ({"left_ms": True}, "left"),
        ({"pause_ms": "long"}, "`pause_ms` must be a whole number of at least 50, but is 'long'"),
        ({"device": "tpu9"}, "a device is cpu, cuda or cuda:N, got 'tpu9'"),
        ({"dtype": "fp8"}, "a number type is one of fp32, bf16, fp16, int8, got 'fp8'"),
        ({"latency_unit": "word"}, "`latency_unit` must be 'spm', because tokens are SentencePiece pieces, but is"),
        ({"detokenizer_type": "hf"}, "`detokenizer_type` must be 'simuleval'"),
        ({"speech_chunk_size": 0}, "`speech_chunk_size` must be a positive number of seconds, but is 0"),
    ],
)
def test_configurations_that_cannot_be_used(values: dict[str, Any], message: str) -> None:
    start = {} if "missing" in message else {"model": str(BUNDLE)}
    with pytest.raises(NastError, match=re.escape(message)):
        build_speech_processor(settings_of(**{**start, **values}))


def test_keys_beside_ours() -> None:
    """A wrapper's keys stand in the same file; keys without a value count as left out."""
    wrapped = settings_of(model="m", chunk_ms=None, base_speech_processor_class="x", vad_threshold=0.5)
    assert Settings.of(wrapped) == Settings("m") and Settings("m").speech_chunk_size == 0.1


def test_every_example_is_read() -> None:
    for name in ("processor.yaml", "container.yaml"):
        config = yaml_config(str(CONFIGS / name))
        settings = Settings.of(config)
        assert config.type == f"{NastSpeechProcessor.__module__}.{NastSpeechProcessor.__name__}"
        assert settings.chunk_ms == 320 and settings.speech_chunk_size == 0.1
    # What is commented out can be used.
    text = re.sub(r"(?m)^# (\w+: )", r"\1", (CONFIGS / "processor.yaml").read_text())
    assert Settings.of(SimpleNamespace(**yaml.safe_load(text))).left_ms == "unlimited"


def test_languages() -> None:
    processor = build_speech_processor(settings_of(model=str(BUNDLE)))
    processor.set_source_language("fr")
    processor.set_target_language("en-GB")
    processor.process_chunk(np.zeros(100, np.float32))
    with pytest.raises(ConfigError, match="the target language must be 'en', but is 'it'"):
        processor.set_target_language("it")
    with pytest.raises(ConfigError, match="'it'"):  # a host that ignored the error gets no text
        processor.process_chunk(np.zeros(100, np.float32))
    processor.clear()
    processor.process_chunk(np.zeros(100, np.float32))
    with pytest.raises(ConfigError, match="the source language must be 'fr', but is 'French'"):
        processor.set_source_language("French")


def test_processors_share_one_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_bundle(make_bundle(tmp_path / "system", units=False), tmp_path / "bundle")
    loaded: list[System] = []
    load = adapter.load_system

    def counted(*values: Any) -> System:
        loaded.append(load(*values))
        return loaded[-1]

    monkeypatch.setattr(adapter, "load_system", counted)
    configs = [settings_of(model=str(tmp_path / "bundle"), chunk_ms=ms) for ms in (160, 320, 320, 640)]
    configs[3].pause_ms = 300
    with ThreadPoolExecutor(4) as pool:
        processors = list(pool.map(build_speech_processor, configs))
    (system,) = loaded
    assert all(processor.system.model is system.model for processor in processors)
    assert [processor.policy.chunk_ms for processor in processors] == [160, 320, 320, 640]
    assert [processor.system.pause_ms for processor in processors] == [None, None, None, 300]
    build_speech_processor(settings_of(model=str(tmp_path / "bundle"), dtype="bf16"))
    assert len(loaded) == 2


# --- the WebSocket server -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def websocket_serving(folder: Path, processor: Path, **settings: Any) -> Iterator[str]:
    """simulstream's WebSocket server in a thread; its address. It logs to ``server.jsonl`` in ``folder``."""
    port, loop = free_port(), asyncio.new_event_loop()
    logged = {"enabled": True, "filename": str(folder / "server.jsonl")}
    configuration = changed("server.yaml", folder, port=port, metrics=logged, **settings)
    files = argparse.Namespace(server_config=str(configuration), speech_processor_config=str(processor))
    task = loop.create_task(websocket_server.main(files))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        wait_for_port(port, thread.is_alive)
        yield f"ws://127.0.0.1:{port}/"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


def wait_for_port(port: int, is_alive: Callable[[], bool]) -> None:
    for _ in range(1200):
        assert is_alive(), "the server has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        threading.Event().wait(0.05)
    raise AssertionError("the server does not listen")


def as_sent(path: Path, sample_rate: int = 16000) -> np.ndarray:
    """What the WAV client sends of a file: the last 100 ms or less come twice."""
    samples = load_audio(path)
    last = (len(samples) - 1) // (sample_rate // 10) * (sample_rate // 10)
    return np.concatenate([samples, samples[last:]])


async def talk(address: str, samples: np.ndarray, cut: int, **metadata: Any) -> str:
    """Text of a source, sent in pieces of ``cut`` bytes by a client of our own."""
    async with websockets.connect(address) as socket_:
        await socket_.send(json.dumps({"sample_rate": 16000, **metadata}))
        data = np.round(samples * 32768).astype("<i2").tobytes()
        for begin in range(0, len(data), cut):
            await socket_.send(data[begin : begin + cut])
        await socket_.send(json.dumps({"end_of_stream": True}))
        text = ""
        async for message in socket_:
            answer = json.loads(message)
            if "end_of_processing" in answer:
                return text
            assert set(answer) == {"new", "deleted"} and answer["deleted"] == ""
            text += answer["new"]
    raise ConnectionError("the server closed the connection")


def test_websocket_server(tmp_path: Path, wavs: Path, expected: dict[str, str]) -> None:
    """The WAV client, then two clients at a time, and one that asks for another language."""
    system = shared_system(Settings(str(BUNDLE)))
    with websocket_serving(tmp_path, CONFIGS / "processor.yaml", pool_size=2, acquire_timeout=5) as address:
        files = [str(wavs / f"{name}.wav") for name in NAMES]
        asyncio.run(wav_reader_client.stream_wav_files(address, files, 100, "en", "fr"))
        texts = texts_of(tmp_path / "server.jsonl")
        sent = {name: as_sent(wavs / f"{name}.wav") for name in NAMES}
        assert texts == {name: system.translate(sent[name], chunk_ms=320).text for name in NAMES}

        async def several() -> list[Any]:
            talks = [talk(address, load_audio(wavs / f"{name}.wav"), cut) for name, cut in zip(NAMES, (1000, 10400))]
            return await asyncio.gather(*talks, return_exceptions=True)

        assert asyncio.run(several()) == [f" {expected[name]}" for name in NAMES[:2]]
        with pytest.raises((ConnectionError, websockets.ConnectionClosed)):
            asyncio.run(talk(address, load_audio(wavs / f"{NAMES[0]}.wav"), 3200, target_lang="it"))
        assert asyncio.run(several()) == [f" {expected[name]}" for name in NAMES[:2]]  # its place is free again


# --- the HTTP server of speech processors -------------------------------------------------------------------------


def test_http_server_and_proxy(
    tmp_path: Path, wavs: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of the container in a process of its own; ``simulstream_inference`` with the proxy."""
    port = free_port()
    server = changed("http_server.yaml", tmp_path, port=port, pool_size=1)
    proxy = changed("http_proxy.yaml", tmp_path, port=port)
    module = "simulstream.server.speech_processors.remote.http_speech_processor_server"
    command = [sys.executable, "-m", module, "--server-config", str(server)]
    command += ["--speech-processor-config", str(CONFIGS / "processor.yaml")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        try:
            wait_for_port(port, lambda: running.poll() is None)
            run_command(
                f"simulstream_inference --speech-processor-config {proxy} --wav-list-file {wavs / 'wavs.txt'} "
                f"--src-lang fr --tgt-lang en --metrics-log-file {tmp_path / 'log.jsonl'}",
                monkeypatch,
            )
            assert texts_of(tmp_path / "log.jsonl", proxy) == expected
            # One place: a second source is refused until the first is cleared; a wrong language ends in an error.
            first, second = (HttpProxySpeechProcessor(yaml_config(str(proxy))) for _ in range(2))
            assert first.speech_chunk_size == 0.1
            with pytest.raises((OSError, http.client.HTTPException)):
                second.process_chunk(np.zeros(16000, np.float32))
            with pytest.raises((OSError, http.client.HTTPException)):
                first.set_target_language("it")
            first.clear()
            samples = load_audio(wavs / f"{NAMES[1]}.wav")
            outputs = [second.process_chunk(samples), second.end_of_stream()]
            assert "".join(output.new_string for output in outputs) == f" {expected[NAMES[1]]}"
            second.clear()
        finally:
            running.kill()


# --- simulstream's wrapper around the SimulEval agent -------------------------------------------------------------


def test_simuleval_wrapper(
    tmp_path: Path, wavs: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("simuleval", reason="needs SimulEval: bash scripts/install.sh simuleval")
    config = CONFIGS / "simuleval_wrapper.yaml"
    run_command(
        f"simulstream_inference --speech-processor-config {config} --wav-list-file {wavs / 'wavs.txt'} "
        f"--metrics-log-file {tmp_path / 'log.jsonl'}",
        monkeypatch,
    )
    assert texts_of(tmp_path / "log.jsonl", config) == expected


# --- simulstream's scorers on our logs ----------------------------------------------------------------------------


def test_statistics(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run_command(f"simulstream_stats --eval-config {CONFIGS / 'processor.yaml'} --log-file {log}", monkeypatch)
    figures = json.loads(printed.partition("Stats: ")[2])
    assert figures["normalized_erasure"]["value"] == 0 and figures["real_time_factor"]["value"] > 0


QUALITY = """
import sys, types
# The package of quality scorers imports COMET even where BLEU is asked for.
sys.modules.setdefault("comet", types.SimpleNamespace(download_model=None, load_from_checkpoint=None))
from simulstream.metrics.score_quality import cli_main
cli_main()
"""


def test_scorers(log: Path, wavs: Path, expected: dict[str, str]) -> None:
    """StreamLAAL and BLEU of the log, equal to our own where each recording is one segment."""
    pytest.importorskip("mweralign", reason="needs mweralign, which is under the GPL and in no extra of this project")
    pytest.importorskip("sacrebleu", reason="needs the extra evaluate")
    from nast_s2x.metrics.latency import length_adaptive_average_lagging
    from nast_s2x.metrics.quality import bleu

    references = (RECORDINGS / "target.txt").read_text().splitlines()[: len(NAMES)]
    seconds = [len(load_audio(wavs / f"{name}.wav")) / 16000 for name in NAMES]
    (wavs / "references.txt").write_text("".join(f"{line}\n" for line in references))
    parts = [{"wav": f"{name}.wav", "offset": 0.0, "duration": length} for name, length in zip(NAMES, seconds)]
    (wavs / "segments.yaml").write_text(yaml.safe_dump(parts))
    common = ["--eval-config", CONFIGS / "processor.yaml", "--log-file", log]
    common += ["--audio-definition", wavs / "segments.yaml"]

    def score(*command: Any) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    module = "simulstream.metrics.score_latency"
    printed = score("-m", module, "--scorer", "stream_laal", *common, "--reference", wavs / "references.txt")
    config = yaml_config(str(CONFIGS / "processor.yaml"))
    delays = [output.ideal_delays for output in LogReader(config, str(log)).final_outputs_and_latencies().values()]
    ours = [
        length_adaptive_average_lagging(times, length, len(reference.split()))
        for times, length, reference in zip(delays, seconds, references)
    ]
    found = re.search(r"ideal_latency=([0-9.]+)", printed)
    assert found and float(found[1]) == pytest.approx(sum(ours) / len(ours), abs=1e-9)
    quality = ["--scorer", "sacrebleu", *common, "--references", wavs / "references.txt"]
    found = re.search(r"sacrebleu score: ([0-9.]+)", score("-c", QUALITY, *quality))
    assert found and float(found[1]) == pytest.approx(bleu(list(expected.values()), references).value, abs=1e-6)


# --- the container and the page -----------------------------------------------------------------------------------


def test_the_container_copies_what_it_needs() -> None:
    text = (ROOT / "scripts" / "Dockerfile.simulstream").read_text().replace("\\\n", " ")
    lines = text.splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied[-2:] == ["--from=bundle", "."]
    copied = copied[:-2]
    assert copied and all((ROOT / path).exists() for path in copied)
    shown = (ROOT / "scripts" / "Dockerfile.simulstream.dockerignore").read_text().split()
    assert {f"!{path}" for path in copied} == {line for line in shown if line.startswith("!")}
    entry, command = (
        yaml.safe_load(line.split(maxsplit=1)[1]) for line in lines if line.startswith(("ENTRYPOINT", "CMD"))
    )
    assert entry[1:] == ["-m", "simulstream.server.speech_processors.remote.http_speech_processor_server"]
    flags = dict(zip(command[::2], command[1::2]))
    assert flags.keys() == {"--server-config", "--speech-processor-config"}
    served, processor = (yaml_config(str(ROOT / path)) for path in flags.values())
    assert (served.hostname, served.port) == ("0.0.0.0", 8080) and f"EXPOSE {served.port}" in lines
    assert vars(served).keys() == vars(yaml_config(str(CONFIGS / "http_server.yaml"))).keys()
    assert Settings.of(processor).model == "/bundle"
    assert any(line.startswith("USER ") and line != "USER root" for line in lines)


def page_commands() -> list[str]:
    """Commands of the page that take seconds and need nothing but simulstream."""
    wanted = ("simulstream_inference ", "simulstream_stats ")
    found = [command for command in commands(ROOT / "nast_s2x" / "agents" / "README.md") if command.startswith(wanted)]
    return [command for command in found if "http_proxy" not in command]


def test_commands_of_the_page(tmp_path: Path, wavs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wavs").symlink_to(wavs)
    ran = [run_command(command.replace("/tmp/", f"{tmp_path}/"), monkeypatch) for command in page_commands()]
    assert len(ran) >= 2 and "Stats: " in ran[-1]
