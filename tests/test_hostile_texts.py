"""Texts with markup, script, template code and control characters are shown as text, and nothing in them runs."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from evaluation_folder import SOURCE_MS, make_evaluation

from nast_s2x.evaluation.compare import compare, format_table
from nast_s2x.evaluation.compare import write as write_comparison
from nast_s2x.evaluation.log import read_log, read_output_pieces
from nast_s2x.evaluation.report import curves, write
from nast_s2x.evaluation.transcripts import audio_hash
from nast_s2x.frontend.audio import write_wav
from nast_s2x.texts import printable

pytest.importorskip("jinja2")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
LONG = "w" * 100_000
HIDDEN = "\x00\x07\x1b[31m\x7f\x85\u2028\u202egpj.\u2066\ud800"
TEMPLATES = "{{7*7}} {% raw %} {# c #} ${7*7} #{7*7} @size@ $\\frac{$ %s %(x)s &amp; &lt; \\u0041"
PLAIN = "<img src=x onerror=window.ran=1><svg onload=window.ran=1>\"'><b onmouseover=window.ran=1>{{7*7}}$\\frac{$"
"""Without the characters that names of folders cannot hold."""


class Listener:
    """A server on this machine that notes what is asked for."""

    def __init__(self) -> None:
        asked = self.asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("browser") / "profile", "--autoplay-policy=no-user-gesture-required")
    yield browser
    browser.close()


def markup(address: str, name: str) -> str:
    """Markup that runs a script or asks ``address`` for something, wherever in a page it stands unescaped."""
    call = f"window.ran=(window.ran||'')+'{name} ';document.title='ran';void 0"
    return (
        f'"><script>{call}</script>\'><img src="x" onerror="{call}"><svg onload="{call}"></svg>'
        f'<a href="javascript:{call}">a</a><iframe src="javascript:parent.{call}"></iframe>'
        f'<img src="{address}/{name}"><script src="{address}/{name}.js"></script><style>*{{display:none}}</style>'
        f'<b style="color:red" onfocus="{call}" tabindex=1 autofocus>b</b>'
        f'<form action="{address}/{name}"><button id=send>c</button></form>'
    )


def hostile(address: str, name: str) -> str:
    """Everything in one text; ``name`` tells in which field it stood."""
    endings = "</title></style></script></textarea></svg></p></table>--><!-- ]]><![CDATA["
    moves = f'<base href="{address}/"><meta http-equiv=refresh content="0;url={address}/moved">'
    return f"{name} {endings}{markup(address, name)}{moves} {TEMPLATES} {HIDDEN} end-of-{name}"


class Texts:
    """Hostile texts, one for each field, and all that were given out."""

    def __init__(self, address: str) -> None:
        self.address, self.given = address, dict[str, str]()

    def __call__(self, name: str) -> str:
        return self.given.setdefault(name, hostile(self.address, name))


def edit_lines(path: Path, change: Any) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | change(line)) + "\n" for line in lines))


def edit_scores(folder: Path, text: Texts) -> dict[str, Any]:
    """Put a hostile text into every field of ``scores.json`` that may hold one; returns its content."""
    path = folder / "scores.json"
    scores: dict[str, Any] = json.loads(path.read_text())
    languages = {"source_lang": text("source-language"), "target_lang": text("target-language")}
    settings = scores["settings"]
    settings |= {name: text(name) for name in ("device", "dtype", "left_ms")}
    settings["model"] = {"path": text("model-path"), "sha256": "<b>" * 9, **languages, "example": "yes"}
    settings["versions"] = {text("package"): text("version")}
    settings |= {name: {"path": text(f"{name}-path")} for name in ("target", "units")}
    scores |= {"notes": [text("note")], "recogniser": text("recogniser") if scores["recogniser"] else None}
    for row in scores["rows"]:
        row["latency"][text("latency-name")] = 1.5
        row["signatures"] = {"BLEU": text("signature"), text("signature-name"): "x"}
    path.write_text(json.dumps(scores))
    return scores


@pytest.fixture(scope="module")
def speech(listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Texts]:
    """Page of an evaluation of speech with hostile texts in every field, and the texts."""
    text = Texts(listener.address)
    outputs = [text("hypothesis"), f"{LONG} {text('second-hypothesis')}"]
    folder = make_evaluation(tmp_path_factory.mktemp("speech"), "speech", outputs, chunks=("320", "offline"))
    (folder / "320").rename(folder / PLAIN)
    scores = edit_scores(folder, text)
    scores["rows"][0]["chunk"] = PLAIN
    scores["settings"]["vocoder"] = {"path": text("vocoder-path")}
    sources = folder / "sources.tsv"
    sources.write_text(f"id\taudio\tsrc_text\n1\t1.wav\t{markup(listener.address, 'source-text')} {TEMPLATES}\n")
    scores["settings"]["source"] = {"path": str(sources)}
    scores["rows"][0]["empty"] = 1
    (folder / "scores.json").write_text(json.dumps(scores))
    names = {0: {"id": text("id"), "reference": text("reference")}, 1: {"id": "1", "reference": LONG + text("second")}}
    heard = {"transcript": text("transcript"), "transcript_silence": text("transcript-with-silences")}
    for chunk in (PLAIN, "offline"):
        edit_lines(folder / chunk / "instances.log", lambda line: names[line["index"]])
        edit_lines(folder / chunk / "instances.log", lambda line: {"audio": text("audio")} if line["index"] else {})
        edit_lines(folder / chunk / "utterances.jsonl", lambda line: heard)
    spoken = np.concatenate(read_output_pieces(read_log(folder / PLAIN)[0]))
    words = [[text("recognised-word"), 0.0, 0.1]]
    entry = {"audio": audio_hash(spoken), "recogniser": text("recogniser"), "text": "", "words": words}
    (folder / "transcripts.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "pictures", lambda rows, target: ["StartOffset"])  # the others take seconds to draw
        write(folder, shown=2)
    text.given["source-text"] = sources.read_text().split("\t")[-1].strip()
    text.given |= {name: " ".join(text(name).split()) for name in ("hypothesis", "second-hypothesis")}
    text.given["audio"] = str(Path(text("audio")))
    text.given |= {"chunk": PLAIN, "long": LONG, "digest": "(sha256 <b><b><b><b>…)"}
    return folder / "report.html", text


@pytest.fixture(scope="module")
def talks(listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Texts]:
    """The same of long recordings."""
    text = Texts(listener.address)
    folder = make_evaluation(tmp_path_factory.mktemp("talks"), chunks=("320",))
    scores = edit_scores(folder, text)
    name = f"{PLAIN} {HIDDEN} {LONG}"  # the page shows what is behind the last slash
    figures = {"quality": {"BLEU": 1.0}, "latency": {"LongYAAL": 900.0}}
    talk = {"recording": f"/talks/{name}", "source_ms": SOURCE_MS, "growth": 1.0, "segments": 1, "empty": 0, **figures}
    scores["rows"][0]["recordings"] = [talk]
    (folder / "scores.json").write_text(json.dumps(scores | {"long_form": True}))
    segment = {"index": 0, "recording": talk["recording"], "offset_ms": 0.0, "source_ms": SOURCE_MS}
    segment |= {"text": text("segment"), "reference": "r", "latency": {"LongYAAL": 900.0}}
    (folder / "320" / "utterances.jsonl").write_text(json.dumps(segment) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "pictures", lambda rows, target: [])
        write(folder)
    text.given["talk"] = name
    return folder / "report.html", text


NOTHING_RAN = """(() => {
  const all = [...document.querySelectorAll("*")], known = new Set(%s);
  const names = all.flatMap((element) => element.getAttributeNames());
  return [
    window.ran ?? null,
    all.map((element) => element.localName).filter((name) => !known.has(name)),
    names.filter((name) => name.startsWith("on") || name === "style"),
    [...document.links].map((link) => link.getAttribute("href")).filter((href) => !href.startsWith("#")),
  ];
})()"""
ELEMENTS = """html head meta title link style script body header h1 h2 h3 h4 p a nav ul li main aside section div span
bdi dl dt dd figure figcaption picture source img table caption thead tbody tr th td fieldset legend label input
article audio details summary footer svg desc text rect line path circle"""


def check_nothing_ran(browser: Browser, listener: Listener, title: str) -> None:
    """No script of a text ran, no text became an element or attribute, and no address was asked for."""
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run(NOTHING_RAN % json.dumps(ELEMENTS.split())) == [None, [], [], []]
    assert browser.run("document.title") == title
    assert browser.faults == [] and listener.asked == []
    assert all(address.startswith(("file:", "data:")) for address in browser.requests)


def check_shown(browser: Browser, texts: Texts) -> None:
    found = browser.run("document.body.textContent")
    missing = [name for name, text in texts.given.items() if printable(text) not in found]
    assert not missing


def strip_policy(html: str) -> str:
    start = html.index('<meta http-equiv="Content-Security-Policy"')
    return html[:start] + html[html.index(">", start) + 1 :]


@needs_chromium
@pytest.mark.parametrize("kind", ["speech", "talks"])
def test_reports_show_texts_and_run_nothing(
    request: pytest.FixtureRequest, browser: Browser, listener: Listener, kind: str, tmp_path: Path
) -> None:
    """With the policy, and by the escaping alone."""
    page, texts = request.getfixturevalue(kind)
    title = f"Evaluation of {printable(Path(texts('model-path')).name)}"
    html = page.read_text("utf-8")
    assert html.index("Content-Security-Policy") < html.index("<title>") and "unsafe" not in html[:2000]
    (tmp_path / "bare.html").write_text(strip_policy(html), "utf-8")
    for path in (page, tmp_path / "bare.html"):
        browser.open(path.as_uri())
        check_nothing_ran(browser, listener, " ".join(title.split()))
        check_shown(browser, texts)
    browser.resize(390, 800)
    wide = "[...document.querySelectorAll('body *')].filter((e) => !e.parentElement.closest('.scroll')"
    wide += " && e.getBoundingClientRect().right > 390.5).map((e) => e.outerHTML.slice(0, 90))"
    assert browser.run(wide) == []  # long words do not widen the page


@needs_chromium
def test_the_page_works_under_its_policy(speech: tuple[Path, Texts], browser: Browser, listener: Listener) -> None:
    browser.open(speech[0].as_uri())
    browser.resize(1280, 900)
    assert browser.run("getComputedStyle(document.querySelector('.tile')).borderRadius") == "10px"
    browser.wait("[...document.images].length && [...document.images].every((image) => image.naturalWidth === 768)")
    visible = "[...document.querySelectorAll('.panel')].filter((panel) => panel.offsetParent).map((p) => p.className)"
    assert browser.run(visible) == ["panel panel-0"] * 2
    assert browser.run("document.querySelector('details').open") is False
    browser.click(".panel-0 summary")
    assert browser.run("document.querySelector('.panel-0 details table').checkVisibility()")
    # A sound that starts stops the others, and moves the line of its timeline.
    browser.run("window.sounds = [...document.querySelectorAll('.utterance')][0].querySelectorAll('audio'); 0")
    browser.run("sounds[0].play()")
    browser.wait("sounds[0].currentTime > 0")
    browser.run("document.querySelector('.panel-0 audio.follows').play()")
    browser.wait("sounds[0].paused")
    browser.wait("Number(document.querySelector('.panel-0 .playhead').getAttribute('x1')) > 13")
    # Another chunk size shows its panel, and stops the sound that it hides.
    browser.click("#chunk-1")
    assert browser.run(visible) == ["panel panel-1"] * 2
    browser.wait("document.querySelector('.panel-0 audio.follows').paused")
    assert browser.faults == [] and listener.asked == []


@needs_chromium
@pytest.mark.parametrize("has_policy", [True, False])
def test_the_policy_alone_stops_what_is_not_escaped(
    speech: tuple[Path, Texts], browser: Browser, listener: Listener, tmp_path: Path, has_policy: bool
) -> None:
    """Without the policy, the same markup runs: these texts would be noticed."""
    html = speech[0].read_text("utf-8")
    html = html if has_policy else strip_policy(html)
    raw = markup(listener.address, "raw")
    (tmp_path / "raw.html").write_text(html.replace("</main>", f'<div id=raw title="">{raw}</div></main>'), "utf-8")
    browser.open((tmp_path / "raw.html").as_uri())
    browser.run("document.querySelector('#raw a').click(); document.querySelector('#raw b').focus(); 0")
    if not has_policy:
        browser.wait("window.ran && document.title === 'ran'")
        assert set(listener.asked) >= {"/raw", "/raw.js"}
        listener.asked.clear()
        return
    browser.click("#send")
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run("window.ran ?? null") is None and browser.run("document.title").startswith("Evaluation of ")
    assert browser.run("getComputedStyle(document.querySelector('#raw b')).color") != "rgb(255, 0, 0)"
    assert listener.asked == [] and sum("Content Security Policy" in fault for fault in browser.faults) >= 8


def test_comparisons(tmp_path: Path) -> None:
    """Table in the terminal, CSV, JSON, and the picture; names of folders need not be UTF-8."""
    names = [f"=1+1 {PLAIN}", "b\x1b[31m\u202e\udce9 $\\frac{$"]
    folders = [make_evaluation(tmp_path / name, chunks=("320",)) for name in names]
    scores = json.loads((folders[1] / "scores.json").read_text())
    scores["settings"]["device"] = "cuda\x1b[2J\n"
    (folders[1] / "scores.json").write_text(json.dumps(scores))
    comparison = compare(folders, samples=10)
    table = format_table(comparison)
    assert all(printable(line) == line for line in table.split("\n"))
    assert all(printable(name) in table for name in names) and "cuda\\x1b[2J\\n" in table
    write_comparison(comparison, tmp_path / "out")
    assert json.loads((tmp_path / "out/compare.json").read_bytes()) == comparison
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out/compare.csv").read_text("utf-8"), newline="")))
    assert [line["system"] for line in lines] == ["'" + names[0], names[1].replace("\udce9", "\\udce9")]
    assert (tmp_path / "out/compare.png").read_bytes().startswith(b"\x89PNG")


# --- The page of the server ---------------------------------------------------------------------------------------


@needs_chromium
def test_texts_of_a_server_are_shown_and_run_nothing(
    browser: Browser, listener: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from random_system import make_bundle, make_signal
    from running_server import Running
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.websockets import WebSocket

    from nast_s2x.serving.app import Server

    text = {name: hostile(listener.address, name).replace("\ud800", "") for name in ("source", "target", "error")}
    names = {name: markup(listener.address, name) for name in ("source_lang", "target_lang", "model", "example")}
    chunks = [{"chunk_ms": f"<b>{TEMPLATES}", "lookahead_ms": PLAIN}]
    sessions = []

    async def health(self: Server, request: Request) -> Response:
        return JSONResponse({**names, "voice": False, "transcript": True, "needs_token": False, "chunks": chunks})

    async def realtime(self: Server, socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        await socket.send_json({"type": "session.updated"})
        sessions.append(socket)
        if len(sessions) == 2:
            await socket.close(4000, PLAIN[:120])
            return
        for kind, name in (("input", "source"), ("output", "target")):
            await socket.send_json({"type": f"session.{kind}_transcript.delta", "delta": text[name], "source_ms": 1})
        await socket.send_json({"type": "error", "error": {"message": text["error"]}})
        await socket.close()

    monkeypatch.setattr(Server, "health", health)
    monkeypatch.setattr(Server, "realtime", realtime)
    write_wav(tmp_path / "sound.wav", make_signal(1.0))
    with Running(make_bundle(tmp_path / "bundle")) as server:
        browser.open(f"http://127.0.0.1:{server.port}/")
        idle = "document.body.dataset.state === 'idle' && document.querySelector('#error').textContent"
        browser.wait("document.body.dataset.state === 'idle'")
        elements = browser.run("document.querySelectorAll('*').length")
        browser.click("[value=file]")
        browser.choose_file("#file", tmp_path / "sound.wav")
        problems = []
        for _ in range(2):
            browser.click("#start")
            browser.wait(idle)
            problems.append(browser.text("#error"))
            if len(problems) == 1:
                shown = {name: browser.text(f"#{name}") for name in ("source", "target", "languages", "example")}
                added = browser.run("document.querySelectorAll('*').length") - elements
        assert browser.run("document.title") == "Speech translation" and browser.run("window.ran ?? null") is None
        assert browser.text("#chunk") == f"{chunks[0]['chunk_ms']} ms" and PLAIN in browser.text("#chunk-now")
    assert problems[0] == f"The server says: {text['error']}." and f"(4000, {PLAIN[:120]})" in problems[1]
    assert (shown["source"], shown["target"]) == (text["source"], text["target"])
    assert added == 4  # a paragraph and its words for each kind of caption
    assert (
        shown["languages"] == f"{names['source_lang']} to {names['target_lang']}"
        and names["example"] in shown["example"]
    )
    assert browser.faults == [] and listener.asked == []
    assert all(address.startswith(f"http://127.0.0.1:{server.port}/") for address in browser.requests)
