"""``nast-s2x live``: the words of ``translate``, from a file, a microphone and a server; devices, errors, captions."""

from __future__ import annotations

import io
import json
import signal
import socket
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nast_s2x.cli import live
from nast_s2x.cli.live import Captions
from nast_s2x.cli.main import build_parser, main
from nast_s2x.errors import AudioError, NastError
from nast_s2x.frontend import microphone
from nast_s2x.frontend.audio import load_audio
from nast_s2x.frontend.microphone import Loudspeaker, Microphone

EXAMPLE = Path(__file__).parents[1] / "examples" / "espeak_fr_en"
BUNDLE, SPEECH_BUNDLE = str(EXAMPLE / "bundle"), str(EXAMPLE / "speech_bundle")
RECORDING = str(EXAMPLE / "recordings" / "test_00002.flac")


class FakeClock:
    """Time passes only by waiting; ``stop_after`` waits, Ctrl-C is given."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.time, self.waits, self.stop_after = 100.0, 0, stop_after

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time, self.waits = self.time + seconds, self.waits + 1
        if self.waits == self.stop_after:
            signal.raise_signal(signal.SIGINT)


def run_live(*words: str, clock: FakeClock | None = None) -> int:
    return live.run(build_parser("live").parse_args(["live", *words]), clock or FakeClock())


def translated(capsys: pytest.CaptureFixture[str], path: str, *words: str) -> str:
    """What `translate` prints as the whole translation."""
    capsys.readouterr()
    assert main(["translate", path, "--model", BUNDLE, *words]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("= ")]
    return line[2:]


# --- a file as a source -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", ["320", "640"])
def test_a_file_gives_the_words_of_translate(chunk: str, capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    assert run_live("--model", BUNDLE, "--input", RECORDING, "--chunk-ms", chunk, clock=clock) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and " ".join(lines) == translated(capsys, RECORDING, "--chunk-ms", chunk)
    assert clock.time - 100.0 == pytest.approx(soundfile.info(RECORDING).duration)  # the speed of speech


def test_json_and_other_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "stereo.wav"
    samples = load_audio(RECORDING, 44100)
    soundfile.write(path, np.stack([samples, samples], 1), 44100)
    assert run_live("--model", BUNDLE, "--input", str(path), "--json") == 0
    *entries, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert " ".join(entry["text"] for entry in entries if entry["text"]) == translated(capsys, str(path))
    assert [entry["final"] for entry in entries] == [False] * (len(entries) - 1) + [True]
    assert all(entry["elapsed_ms"] == pytest.approx(entry["source_ms"]) for entry in entries)  # by the fake clock
    assert last == {"summary": {"source_ms": pytest.approx(1000 * len(samples) / 44100, abs=0.01)}}


def test_ctrl_c_ends_the_source_and_prints_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert run_live("--model", BUNDLE, "--input", RECORDING, clock=FakeClock(stop_after=37)) == 0
    assert signal.getsignal(signal.SIGINT) is before
    said = " ".join(capsys.readouterr().out.splitlines())
    samples, rate = soundfile.read(RECORDING, dtype="int16")
    soundfile.write(tmp_path / "begun.wav", samples[: 37 * rate // 25], rate)
    assert said == translated(capsys, str(tmp_path / "begun.wav")) and said


def test_the_voice_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pushed = ["--model", SPEECH_BUNDLE, "--output"]
    assert run_live(*pushed, str(tmp_path / "voice.wav"), "--input", RECORDING) == 0
    assert main(["translate", RECORDING, "--speech", *pushed, str(tmp_path)]) == 0
    ours, theirs = (soundfile.read(tmp_path / name, dtype="int16") for name in ("voice.wav", "test_00002.wav"))
    assert ours[1] == theirs[1] == 16000 and len(ours[0]) > 8000
    assert np.abs(ours[0].astype(int) - theirs[0]).max() <= 1


# --- a server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    for name in ("starlette", "uvicorn", "websockets"):
        pytest.importorskip(name, reason="needs the extra serve")
    from running_server import Running

    from nast_s2x.inference import load_system
    from nast_s2x.serving.app import Admission

    with Running(load_system(SPEECH_BUNDLE), slots=1, admission=Admission(["a-token-of-16-letters"])) as running:
        yield running


def test_a_server_gives_the_words_of_translate(server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-of-16-letters\n")
    asked = ["--server", f"http://127.0.0.1:{server.port}", "--token-file", str(tokens), "--input", RECORDING]
    assert run_live(*asked, "--output", str(tmp_path / "theirs.wav")) == 0
    said = " ".join(capsys.readouterr().out.splitlines())
    server.wait_until_free()
    assert run_live("--model", SPEECH_BUNDLE, "--input", RECORDING, "--output", str(tmp_path / "ours.wav")) == 0
    assert said == " ".join(capsys.readouterr().out.splitlines()) and len(said.split()) > 4
    theirs, ours = (soundfile.read(tmp_path / name, dtype="int16")[0] for name in ("theirs.wav", "ours.wav"))
    assert len(theirs) == len(ours) and np.abs(theirs.astype(int) - ours).max() <= 2
    assert run_live(*asked, "--chunk-ms", "1280") == 0
    assert " ".join(capsys.readouterr().out.splitlines()) == said_at(1280, capsys)


def said_at(chunk_ms: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["translate", RECORDING, "--model", SPEECH_BUNDLE, "--chunk-ms", str(chunk_ms)]) == 0
    return capsys.readouterr().out.splitlines()[-1][2:]


def test_a_server_refuses_is_full_or_is_not_there(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    url, token = f"ws://127.0.0.1:{server.port}", ["--token", "a-token-of-16-letters"]
    with pytest.raises(NastError, match="HTTP 403: it needs a valid token"):
        run_live("--server", url, "--input", RECORDING)
    with pytest.raises(NastError, match="nothing at this path"):
        run_live("--server", f"{url}/nothing", "--input", RECORDING)
    with pytest.raises(NastError, match="chunk_ms` must be one of"):
        run_live("--server", url, *token, "--input", RECORDING, "--chunk-ms", "7")
    from nast_s2x.serving.client import Client

    with Client(url, token[1]) as other:
        other.push(np.zeros(100, np.float32), 16000)
        while not server.worker.in_use:
            threading.Event().wait(0.01)
        with pytest.raises(NastError, match="all 1 slots are in use: try again in"):
            run_live("--server", url, *token, "--input", RECORDING)
    server.wait_until_free()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # does not listen
        with pytest.raises(NastError, match="no server can be reached there"):
            run_live("--server", f"ws://127.0.0.1:{free.getsockname()[1]}", "--input", RECORDING)


def test_a_server_that_goes_away() -> None:
    websockets_server = pytest.importorskip("websockets.sync.server", reason="needs the extra serve")

    def vanish(connection: Any) -> None:
        for _ in range(3):
            connection.recv()
        connection.send('{"new": "the last", "deleted": ""}')
        connection.socket.shutdown(socket.SHUT_RDWR)

    with websockets_server.serve(vanish, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        from nast_s2x.serving.client import Client, ServerError

        with Client(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/x") as client:
            came = []
            with pytest.raises(ServerError, match="the server is gone"):
                for _ in range(1000):
                    came += client.push(np.zeros(160, np.float32), 16000)
                    threading.Event().wait(0.01)
            assert [answer.text for answer in came] == ["the last"]
            with pytest.raises(ServerError, match="the server is gone"):
                list(client.finish())


# --- devices ------------------------------------------------------------------------------------------------------


class FakePortAudioError(Exception):
    pass


class FakeStream:
    """An audio stream whose callback the test calls."""

    opened: list[FakeStream] = []

    def __init__(self, **options: Any) -> None:
        self.options, self.calls = options, []
        FakeStream.opened.append(self)

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")

    def capture(self, samples: np.ndarray, overflow: bool = False) -> None:
        status = types.SimpleNamespace(input_overflow=overflow)
        self.options["callback"](samples[:, None].astype(np.float32), len(samples), None, status)

    def play(self, frames: int, underflow: bool = False) -> np.ndarray:
        out = np.full((frames, 1), 9.0, np.float32)
        self.options["callback"](out, frames, None, types.SimpleNamespace(output_underflow=underflow))
        return out[:, 0]


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("sounddevice")

    def query_devices(device: int | None, kind: str) -> dict[str, Any]:
        if device == 7:
            raise ValueError("No such device")
        return {"default_samplerate": 16000.0 if kind == "input" else 48000.0}

    module.PortAudioError, module.query_devices = FakePortAudioError, query_devices
    module.InputStream = module.OutputStream = FakeStream
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    FakeStream.opened.clear()
    return module


def test_a_microphone_gives_the_words_of_translate(
    devices: types.ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = load_audio(RECORDING)

    def start(stream: FakeStream) -> None:
        def speak() -> None:
            for first in range(0, len(samples), 700):
                stream.capture(samples[first : first + 700], overflow=first == 700)
            signal.raise_signal(signal.SIGINT)

        threading.Thread(target=speak).start()

    monkeypatch.setattr(FakeStream, "start", start)
    assert run_live("--model", BUNDLE) == 0
    captured = capsys.readouterr()
    assert " ".join(captured.out.splitlines()) == translated(capsys, RECORDING)
    assert "listening" in captured.err and "the microphone has lost sound 1 times" in captured.err
    assert FakeStream.opened[0].calls == ["close"]


def test_a_microphone_loses_nothing_in_silence(devices: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "QUEUE_SECONDS", 0.1)
    with Microphone(piece_ms=20) as device:
        stream = FakeStream.opened[0]
        for number in range(12):  # 10 of them fit
            stream.capture(np.full(160, number))
        assert device.lost == 320 and device.overflows == 0
        stop: list[bool] = []
        pieces = device.pieces(lambda: bool(stop))
        piece, rate = next(pieces)
        assert rate == 16000 and piece.tolist() == np.repeat(np.arange(10.0), 160).tolist()
        stream.capture(np.full(100, 1.0))  # shorter than a piece: at the end it comes too
        stop.append(True)
        assert [len(piece) for piece, _ in pieces] == [100]


def test_a_microphone_that_stops(devices: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with Microphone() as device:
        FakeStream.opened[0].capture(np.zeros(10))
        FakeStream.opened[0].options["finished_callback"]()
        pieces = device.pieces()
        assert len(next(pieces)[0]) == 10
        with pytest.raises(AudioError, match="the microphone has stopped"):
            next(pieces)
    monkeypatch.setattr(microphone, "SILENT_SECONDS", 0.01)
    with Microphone() as device, pytest.raises(AudioError, match="the microphone has stopped"):
        next(device.pieces())


def test_a_loudspeaker_plays_without_gaps(devices: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "PLAYBACK_SECONDS", 1.0)
    speech = np.arange(100_000, dtype=np.float32) / 100_000
    with Loudspeaker(source_rate=48000) as device:
        stream = FakeStream.opened[0]
        assert stream.play(10).tolist() == [0.0] * 10  # before the first speech: silence, no underrun
        device.write(speech[:1000])
        device.write(speech[1000:3000])
        assert np.array_equal(stream.play(2500), speech[:2500])
        played = stream.play(1000)
        assert np.array_equal(played[:500], speech[2500:3000]) and not played[500:].any()
        assert device.underruns == 0  # not yet: it may have been the end
        writer = threading.Thread(target=device.write, args=(speech[3000:],))
        writer.start()  # longer than the ring buffer: it waits for the device
        rest = []
        while sum(map(len, rest)) < 97_000:
            if device._written > device._read:  # counts what is there, so that this thread makes no second underrun
                rest.append(stream.play(min(480, device._written - device._read)))
        writer.join()
        assert np.array_equal(np.concatenate(rest), speech[3000:]) and device.underruns == 1
        stream.play(1, underflow=True)
        device.drain()
    assert device.underflows == 1 and stream.calls == ["start", "stop", "close"]


def test_a_loudspeaker_that_stops(devices: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "SILENT_SECONDS", 0.01)
    with Loudspeaker() as device:
        device.write(np.zeros(1000, np.float32))
        with pytest.raises(AudioError, match="the loudspeaker has stopped playing"):
            device.drain()


def test_the_voice_is_played(
    devices: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[np.ndarray] = []
    stopped = threading.Event()

    def start(stream: FakeStream) -> None:
        def listen() -> None:
            while not stopped.wait(0.001):
                played.append(stream.play(4800))

        threading.Thread(target=listen, daemon=True).start()

    monkeypatch.setattr(FakeStream, "start", start)
    monkeypatch.setattr(FakeStream, "stop", lambda stream: stopped.set())
    path = tmp_path / "voice.wav"
    assert run_live("--model", SPEECH_BUNDLE, "--input", RECORDING, "--voice", "--output", str(path), "--json") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert summary["underflows"] == 0 and summary["underruns"] >= 0
    wanted = load_audio(path, 48000)
    sound = np.concatenate(played)
    assert np.sum(sound**2) == pytest.approx(np.sum(wanted**2), rel=0.01) and np.abs(wanted).max() > 0.05


def test_errors_of_devices(
    devices: types.ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["live", "--model", BUNDLE, "--device-in", "7"]) == 1
    assert "device 7 is no microphone (No such device)" in capsys.readouterr().err
    assert main(["live", "--model", SPEECH_BUNDLE, "--voice", "--device-out", "7"]) == 1
    assert "device 7 is no loudspeaker" in capsys.readouterr().err

    def refuse(device: int | None, kind: str) -> dict[str, Any]:
        raise FakePortAudioError("Error querying device -1")

    devices.query_devices = refuse
    assert main(["live", "--model", BUNDLE]) == 1
    assert "error: no microphone (Error querying device -1)" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["live", "--model", BUNDLE]) == 1
    assert "needs the Python package 'sounddevice'" in capsys.readouterr().err


def test_without_portaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AudioError, match="PortAudio library not found: install .* libportaudio2"):
        Microphone()


# --- flags and captions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs either --model BUNDLE or --server URL"),
        (["--model", "b", "--server", "ws://x"], "needs either --model BUNDLE or --server URL"),
        (["--model", "b", "--token", "t"], "--token needs --server"),
        (["--server", "ws://x", "--left-ms", "320"], "--left-ms needs --model"),
        (["--server", "ws://x", "--chunk-ms", "offline"], "must be a whole number of ms, but is offline"),
        (["--server", "ftp://x", "--input", "f.wav"], "must begin with ws://"),
        (["--model", "b", "--input", "f.wav", "--device-in", "1"], "--input and --device-in contradict"),
        (["--model", "b", "--device-out", "1"], "--device-out needs --voice"),
        (["--model", "b", "--vocoder", "v"], "--vocoder needs --voice or --output"),
        (["--model", "b", "--input", "f.wav", "--output", "f.wav"], "--output would overwrite f.wav"),
    ],
)
def test_flags_that_do_not_go_together(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["live", *words]) == 1
    assert message in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_captions_grow_and_are_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    out = Terminal()
    captions = Captions(out)
    for text in ("the small", "", " house is", " red\x1b[2J", " 日本 語"):
        captions.add(text)
    captions.end()
    assert out.getvalue() == "the small\nhouse is\nred\\x1b[2J\n日本 語\n"
    assert all(sum(2 if ord(char) > 0x2000 else 1 for char in line) <= 12 for line in out.getvalue().splitlines())
    out = Terminal()
    captions = Captions(out)
    for text in ("今天天气", "很好，我", "们用GPT-4", "翻译。", " 走吧"):
        captions.add(text)
    captions.end()
    assert out.getvalue() == "今天天气很好\n，我们用\nGPT-4翻译。\n走吧\n"
    lines = io.StringIO()
    captions = Captions(lines)
    for text in ("the small", "", " house\nis"):
        captions.add(text)
    captions.end()
    assert lines.getvalue() == "the small\nhouse\\nis\n"
