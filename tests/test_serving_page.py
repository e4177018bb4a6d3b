"""The page of the server: its files, its parts in Node, and the whole of it in Chromium with a fake microphone."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import soundfile
import soxr

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from browser import CHROMIUM, Browser  # noqa: E402
from running_server import Running  # noqa: E402

from nast_s2x.frontend.audio import load_audio  # noqa: E402
from nast_s2x.inference import System, load_system  # noqa: E402
from nast_s2x.metrics.quality import word_error_rate  # noqa: E402
from nast_s2x.serving.app import Admission  # noqa: E402
from nast_s2x.serving.worker import Worker  # noqa: E402

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "espeak_fr_en"
PAGE = ROOT / "nast_s2x" / "serving" / "page"
RECORDING = EXAMPLE / "recordings" / "test_00002.flac"
RATE = 16000
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")


@pytest.fixture(scope="module")
def system() -> System:
    return load_system(EXAMPLE / "speech_bundle")


@pytest.fixture(scope="module")
def server(system: System) -> Iterator[Running]:
    with Running(system, slots=2) as running:
        yield running


# --- Files --------------------------------------------------------------------------------------------------------


def test_files_are_confined_to_the_server(server: Running) -> None:
    address = f"http://127.0.0.1:{server.port}"
    for path in ("/", *(f"/page/{file.name}" for file in PAGE.iterdir() if file.suffix in (".js", ".css", ".svg"))):
        with urlopen(address + path) as answer:
            policy, text = answer.headers["Content-Security-Policy"], answer.read().decode()
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; ")
        assert f"connect-src 'self' ws://127.0.0.1:{server.port} wss://127.0.0.1:{server.port};" in policy
        assert "unsafe" not in policy and answer.headers["X-Content-Type-Options"] == "nosniff"
        assert set(re.findall(r"https?://[^\s\"'`<$]+", text)) <= {"http://www.w3.org/2000/svg", "http://localhost"}
    assert "<script>" not in (html := (PAGE / "index.html").read_text()) and "style=" not in html
    for path in ("/page/__init__.py", "/page/../app.py", "/page/%2e%2e/app.py", "/page/nothing.js"):
        with pytest.raises(HTTPError) as missing:
            urlopen(address + path)
        assert missing.value.code == 404
    with urlopen(Request(address, headers={"Host": "a; script-src *"})) as answer:
        assert "*" not in answer.headers["Content-Security-Policy"]


# --- Parts, in Node -----------------------------------------------------------------------------------------------


def node(script: str, *files: str, given: bytes = b"") -> bytes:
    """Output of a script that has the exports of ``files``."""
    imports = "".join(
        f"Object.assign(globalThis, await import('data:text/javascript,' + encodeURIComponent("
        f"fs.readFileSync({json.dumps(str(PAGE / name))}, 'utf8'))));\n"
        for name in files
    )
    source = f"import fs from 'fs';\n{imports}{script}"
    done = subprocess.run(["node", "--input-type=module", "-e", source], input=given, capture_output=True, check=True)
    return done.stdout


@needs_node
@pytest.mark.parametrize("rate", [48000, 44100, 16000])
def test_the_resampler_equals_soxr_and_any_cut_gives_the_same(rate: int) -> None:
    # Nothing above 6.5 kHz, which the resampler keeps at each of these rates.
    narrow = soxr.resample(load_audio(RECORDING)[:20000], RATE, 13000, "VHQ")
    samples = soxr.resample(narrow, 13000, rate, "VHQ").astype(np.float32)
    script = f"""
    const bytes = fs.readFileSync(0), samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const whole = new Resampler({rate}, 24000).push(samples, true), pieces = new Resampler({rate}, 24000), parts = [];
    for (let place = 0, size = 0; place < samples.length; place += size) {{
      size = (size * 7 + 128) % 331;
      parts.push(...pieces.push(samples.subarray(place, place + size), place + size >= samples.length));
    }}
    if (parts.length !== whole.length || parts.some((value, place) => value !== whole[place])) throw Error("cuts");
    process.stdout.write(Buffer.from(whole.buffer));
    """
    got = np.frombuffer(node(script, "resample.js", given=samples.tobytes()), np.float32)
    wanted = soxr.resample(samples, rate, 24000, "VHQ")
    assert abs(len(got) - len(wanted)) <= 1
    inside = slice(300, min(len(got), len(wanted)) - 300)
    error = np.square(got[inside] - wanted[inside]).sum() / np.square(wanted[inside]).sum()
    assert 10 * np.log10(error) < -70


@needs_node
def test_the_ring_keeps_every_sample() -> None:
    script = """
    const ring = new Ring(8), out = [];
    let next = 1, seed = 1;
    for (let turn = 0; turn < 500; turn += 1) {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      const size = seed % 23;
      ring.push(Float32Array.from({ length: size }, () => next++));
      const piece = new Float32Array(seed % 19).fill(-1), count = ring.pull(piece);
      if (piece.subarray(count).some((value) => value !== 0)) throw Error("no silence behind the last sample");
      out.push(...piece.subarray(0, count));
    }
    const rest = new Float32Array(ring.length);
    ring.pull(rest);
    console.log(JSON.stringify([out.concat([...rest]), next]));
    """
    out, following = json.loads(node(script, "ring.js"))
    assert out == list(range(1, following)) and following > 1000


# --- The whole, in Chromium ---------------------------------------------------------------------------------------


def speech() -> np.ndarray:
    """What the fake microphone plays: some silence, the recording, silence longer than the test."""
    return np.concatenate([np.zeros(RATE // 5), load_audio(RECORDING), np.zeros(120 * RATE)]).astype(np.float32)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    soundfile.write(folder / "microphone.wav", speech(), RATE)
    browser = Browser(
        folder / "profile",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}%noloop",
        "--host-resolver-rules=MAP page.test 127.0.0.1",
    )
    yield browser
    browser.close()


def visit(browser: Browser, server: Running, host: str = "127.0.0.1", microphone: str = "granted") -> None:
    origin = f"http://{host}:{server.port}"
    setting = {"permission": {"name": "microphone"}, "setting": microphone, "origin": f"http://127.0.0.1:{server.port}"}
    browser.call("Browser.setPermission", **setting)
    browser.open(origin)
    browser.wait(in_state("idle"))


def in_state(name: str) -> str:
    return f"document.body.dataset.state === '{name}'"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Samples at 24 kHz that servers get."""
    pieces: list[np.ndarray] = []
    put = Worker.put
    monkeypatch.setattr(
        Worker, "put", lambda self, seat, samples, *rest: pieces.append(samples) or put(self, seat, samples, *rest)
    )
    return pieces


def check(
    browser: Browser, system: System, received: list[np.ndarray], spoken: np.ndarray, chunk_ms: int = 320
) -> None:
    """The page shows and plays the translation of what the server got, which is like that of the recording.

    Where the capture begins differs from run to run, and a busy machine loses some of the fake microphone's samples.
    """
    stream = system.stream(chunk_ms=chunk_ms, with_speech=True, with_transcript=True)
    emissions = stream.push(np.concatenate(received), 24000, final=True)
    assert float(browser.text("#heard").split()[0]) == pytest.approx(sum(map(len, received)) / 24000, abs=0.06)
    heard, said = (" ".join(browser.text(selector).split()) for selector in ("#source", "#target"))
    assert heard == "".join(emission.source_delta for emission in emissions)
    assert said == "".join(emission.delta for emission in emissions)
    seconds = sum(len(emission.waveform) for emission in emissions) / RATE
    assert float(browser.text("#spoken").split()[0]) == pytest.approx(seconds, abs=0.11) and seconds > 1
    wanted = system.translate(spoken, chunk_ms=chunk_ms, with_transcript=True)
    for found, words in ((heard, wanted.source_text), (said, wanted.text)):
        assert len(set(found.split()) & set(words.split())) >= 0.6 * len(set(words.split())), (found, words)


FIREFOX = """
const connect = AudioContext.prototype.createMediaStreamSource;
AudioContext.prototype.createMediaStreamSource = function (stream) {
  globalThis.rates = [...(globalThis.rates ?? []), this.sampleRate];
  if (this.sampleRate === 24000) throw new DOMException("different sample-rate", "NotSupportedError");
  return connect.call(this, stream);
};"""


@needs_chromium
@pytest.mark.parametrize("rule", ["chromium", "firefox"])
def test_the_microphone_is_translated(
    browser: Browser, server: Running, system: System, received: list[np.ndarray], rule: str
) -> None:
    script = FIREFOX if rule == "firefox" else ""
    added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"]
    visit(browser, server)
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added)
    browser.run("document.querySelector('#start').focus()")
    browser.press("Enter", 13, "\r")
    browser.wait(in_state("running"))
    assert browser.text("#start") == "Stop" and browser.run("document.activeElement.id") == "start"
    browser.wait("document.querySelector('#target').textContent.split(' ').length > 4")  # while it is spoken
    assert browser.text("#chunk-now") == "320 + 320 ms" and re.fullmatch(r"\d+\.\d\d s", browser.text("#delay"))
    browser.wait("document.querySelector('#heard').textContent.split(' ')[0] > 3.8")
    browser.press("Enter", 13, "\r")
    browser.wait(in_state("idle"))
    check(browser, system, received, load_audio(RECORDING))
    assert browser.text("#error") == "" and browser.faults == []
    assert browser.requests and all(address.split("/")[2] == f"127.0.0.1:{server.port}" for address in browser.requests)
    if rule == "firefox":
        rates = browser.run("globalThis.rates")
        assert rates[0] == 24000 and rates[1] in (44100, 48000)
    server.wait_until_free()


@needs_chromium
@pytest.mark.parametrize("speed", ["fast", "spoken"])
def test_a_file_is_translated(
    browser: Browser, server: Running, system: System, received: list[np.ndarray], tmp_path: Path, speed: str
) -> None:
    chunk, seconds = (640, 3.0) if speed == "fast" else (320, 2.2)
    samples = load_audio(RECORDING)[: round(seconds * RATE)]
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, samples], 1), RATE)  # channels are averaged
    visit(browser, server)
    browser.click("[value=file]")
    browser.choose_file("#file", tmp_path / "stereo.wav")
    browser.run(
        f"document.querySelector('#speed').value = '{speed}'; document.querySelector('#chunk').value = '{chunk}'"
    )
    browser.click("#start")
    browser.wait("document.querySelector('#target').textContent")
    browser.wait(in_state("idle"))
    check(browser, system, received, samples, chunk)
    wanted = system.translate(samples, chunk_ms=chunk)
    assert word_error_rate([browser.text("#target")], [wanted.text]) <= 15  # only the browser's resampler differs
    assert sum(map(len, received)) == pytest.approx(24000 * seconds, abs=2)
    assert browser.text("#heard") == f"{seconds} s" and browser.text("#error") == "" and browser.faults == []
    server.wait_until_free()


@needs_chromium
def test_paragraphs_end_with_the_word_that_was_held_back(browser: Browser, server: Running) -> None:
    visit(browser, server)
    browser.run(
        """import("/page/captions.js").then(({ Captions }) => {
          const captions = new Captions(document.querySelector("#target"));
          for (const [text, ms] of [["the red", 500], [" cat", 900], [" sleeps now", 9000], [" we go", 9400],
              [" on", 20000]])
            captions.add(text, ms);
        })"""
    )
    paragraphs = browser.run("[...document.querySelectorAll('#target p')].map((p) => p.textContent)")
    assert paragraphs == ["the red cat sleeps", "now we go on"]


@needs_chromium
def test_only_what_was_held_back_ends_a_paragraph_without_spaces(browser: Browser, server: Running) -> None:
    visit(browser, server)
    browser.run(
        """import("/page/captions.js").then(({ Captions }) => {
          const captions = new Captions(document.querySelector("#target"));
          for (const [text, ms] of [["我们用", 500], ["GPT。他", 9000], ["好", 9400], ["吗", 20000],
              ["ที่", 20100], ["นี้ไป", 30000]])
            captions.add(text, ms);
        })"""
    )
    paragraphs = browser.run("[...document.querySelectorAll('#target p')].map((p) => p.textContent)")
    assert paragraphs == ["我们用GPT。", "他好", "吗ที่นี้", "ไป"]


@needs_chromium
def test_refusals_say_what_to_do(browser: Browser, server: Running, tmp_path: Path) -> None:
    def answer(page: Browser) -> str:
        page.click("#start")
        page.wait(f"{in_state('idle')} && document.querySelector('#error').textContent")
        return page.text("#error")

    visit(browser, server, microphone="denied")
    assert answer(browser).startswith("The microphone is blocked. Allow it for this page")
    visit(browser, server, "page.test")  # plain http, and not this machine as far as the browser knows
    assert "Open this page over https" in answer(browser)
    visit(browser, server)
    browser.click("[value=file]")
    assert answer(browser) == "Choose a file first."
    (tmp_path / "words.wav").write_text("no sound")
    browser.choose_file("#file", tmp_path / "words.wav")
    assert answer(browser).startswith("words.wav has no audio that this browser can decode")
    bare = Browser(tmp_path / "profile")
    try:
        visit(bare, server)
        assert answer(bare).startswith("There is no microphone. Connect one")
    finally:
        bare.close()


@needs_chromium
def test_a_full_or_stopping_server_and_faults_of_the_page_are_shown(browser: Browser, system: System) -> None:
    def problem() -> str:
        browser.wait(f"{in_state('idle')} && document.querySelector('#error').textContent")
        return browser.text("#error")

    with Running(system, slots=0) as full:
        visit(browser, full)
        browser.click("#start")
        assert "all 0 slots are in use: try again in" in problem()
    with Running(system) as stopping:
        visit(browser, stopping)
        browser.click("#start")
        browser.wait("document.querySelector('#heard').textContent.split(' ')[0] > 1.0")
        stopping.stop()
        assert problem() == "The session has ended: the server is stopping."
    browser.run("void setTimeout(() => { throw new Error('broken'); })")
    browser.wait("document.querySelector('#error').textContent.includes('broken')")
    assert browser.text("#error") == "A fault of this page: broken"


@needs_chromium
def test_a_token_is_asked_for_where_one_is_needed(browser: Browser, system: System, server: Running) -> None:
    visit(browser, server)
    assert not browser.run("document.querySelector('#token').checkVisibility()")
    with Running(system, admission=Admission(["0123456789abcdef"])) as guarded:
        visit(browser, guarded)
        assert browser.run("document.querySelector('#token').checkVisibility()")
        browser.click("[value=file]")
        browser.choose_file("#file", RECORDING)
        browser.run("document.querySelector('#speed').value = 'fast'; document.querySelector('#token').value = 'wrong'")
        browser.click("#voice")  # without it there is nothing to play to the end
        browser.click("#start")
        browser.wait("document.querySelector('#error').textContent.includes('the token may be wrong')")
        browser.wait(in_state("idle"))
        browser.run("document.querySelector('#token').value = '0123456789abcdef'")
        browser.click("#start")
        browser.wait("document.querySelector('#target').textContent")
        browser.wait(in_state("idle"))
        assert browser.text("#error") == "" and browser.run("localStorage.length") == 0
        visit(browser, guarded)
        assert browser.run("document.querySelector('#token').value") == "0123456789abcdef"  # in this tab


# Text whose contrast with what is behind it is too low, boxes beyond the window, controls without a name.
AUDIT = """(() => {
  const part = (value) => { const c = value / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [], width = document.documentElement.clientWidth;
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility()) continue;
    const box = element.getBoundingClientRect();
    if (box.right > width + 0.5 || box.left < -0.5) found.push(["beyond", element.outerHTML.slice(0, 80)]);
    if ([...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) {
      const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
      if ((a + 0.05) / (b + 0.05) < 4.5) found.push(["contrast", element.textContent, (a + 0.05) / (b + 0.05)]);
    }
    if (/^(INPUT|SELECT|BUTTON|METER)$/.test(element.tagName)) {
      const name = element.labels?.length ? element.labels[0].textContent : element.ariaLabel ?? element.textContent;
      if (!name?.trim()) found.push(["no name", element.id]);
    }
  }
  return found;
})()"""


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_layout_contrast_and_names(browser: Browser, server: Running, width: int, dark: bool) -> None:
    from PIL import Image

    browser.resize(width, 900, dark)
    visit(browser, server)
    browser.run(
        """document.querySelector("#settings").open = true;
        document.querySelector("#error").textContent = "A problem, and what to do.";
        document.querySelector("#source").innerHTML = document.querySelector("#target").innerHTML =
          "<p>some words that were said and a long one: " + "donaudampfschifffahrt".repeat(4) + "</p>";"""
    )
    assert browser.run(AUDIT) == []
    browser.click("[value=file]")
    assert browser.run(AUDIT) == []
    browser.run("document.querySelectorAll('.is-hidden').forEach((e) => e.classList.remove('is-hidden'))")
    assert browser.run(AUDIT) == []  # everything that may be there, such as the field for a token
    names = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {(node["role"]["value"], node.get("name", {}).get("value")) for node in names if not node["ignored"]}
    assert {("log", "Translation"), ("button", "Start"), ("radio", "Microphone"), ("combobox", "Chunk size")} <= roles
    with Image.open(io.BytesIO(browser.screenshot())) as image:
        corner = np.asarray(image.convert("L"), float)[:5, :5].mean()
    assert corner < 40 if dark else corner > 215


@needs_chromium
def test_every_control_is_reached_by_the_keyboard_with_a_visible_focus(browser: Browser, server: Running) -> None:
    visit(browser, server)
    browser.run("document.querySelector('#settings').open = true")
    reached = []
    for _ in range(9):
        browser.press("Tab", 9)
        place = browser.run(
            "document.activeElement.id || document.activeElement.value || document.activeElement.tagName"
        )
        ring = browser.run(
            "[document.activeElement, document.activeElement.nextElementSibling].some("
            "(e) => e && getComputedStyle(e).outlineStyle !== 'none')"
        )
        assert ring, place
        reached.append(place)
    assert reached[:7] == ["microphone", "start", "SUMMARY", "chunk", "voice", "transcribe", "headphones"]
    assert {"source", "target"} <= set(reached)
