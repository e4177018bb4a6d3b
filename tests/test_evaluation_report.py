"""Reports: curves, timelines, the page, and its layout in a browser."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, Browser
from evaluation_folder import REFERENCES, SOURCE_MS, make_evaluation, tone

from nast_s2x.errors import NastError
from nast_s2x.evaluation import published
from nast_s2x.evaluation.report import curves, timeline, write
from nast_s2x.evaluation.report.glossary import describe, shown
from nast_s2x.evaluation.report.page import page
from nast_s2x.evaluation.report.results import load_results, spread
from nast_s2x.evaluation.report.tables import settings
from nast_s2x.evaluation.report.timeline import wave_path, wrapped
from nast_s2x.evaluation.report.utterances import collect
from nast_s2x.evaluation.scoring import QUALITY_FIGURES
from nast_s2x.frontend.audio import compressed

OUTPUTS = (REFERENCES[0], "my sister buys apples", REFERENCES[2], "")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_evaluation(tmp_path_factory.mktemp("text"), outputs=OUTPUTS)
    write(folder, shown=4)
    return folder


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_evaluation(tmp_path_factory.mktemp("speech"), "speech", OUTPUTS, chunks=("320", "offline"))
    write(folder, shown=2)
    return folder


class Page(HTMLParser):
    """Elements of a page: (name, attributes), and the text outside of scripts and styles."""

    VOID = {"meta", "link", "img", "source", "input"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(folder: Path) -> Page:
    """Parse the page of an evaluation."""
    return Page((folder / "report.html").read_text("utf-8"))


def page_without_pictures(folder: Path, count: int = 1) -> Page:
    """Parse a page without curves, which are slow to draw."""
    results = load_results(folder)
    return Page(page(results, {}, collect(results, spread(results.utterance_scores(results.main_chunk), count))))


def test_published_points_are_the_papers() -> None:
    start = published.points("speech", "ASR_BLEU", "StartOffset")
    assert start == {
        "CVSS-C Fr-En": [("320", 655, 24.9), ("640", 1295, 25.67), ("1280", 2566, 25.71), ("2560", 4697, 26.14)]
    }
    lagging = published.points("text", "BLEU", "AL")
    assert [len(points) for points in lagging.values()] == [4, 4] and lagging["MuST-C En-De"][1] == ("320", 1234, 21.56)
    assert published.points("text", "BLEU", "LAAL") == {}  # not published
    assert published.offline("text", "BLEU") == {"MuST-C En-De": 24.54, "MuST-C En-Es": 28.21}


def test_files(text: Path, speech: Path) -> None:
    assert sorted(path.name for path in text.glob("quality_latency_*.png")) == [
        "quality_latency_AL.png",
        "quality_latency_LAAL.png",
        "quality_latency_StartOffset.png",
    ]
    assert (text / "quality_latency_AL.png").read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in speech.glob("quality_latency_*.png")}
    assert {"quality_latency_StartOffset.png", "quality_latency_AL_chunks_vs_words.png"} <= names
    rows = list(csv.DictReader(io.StringIO((speech / "curves.csv").read_text("utf-8"))))
    measured = [row for row in rows if row["origin"] == "measured" and row["latency"] == "StartOffset"]
    assert [(row["chunk"], row["quality"], row["quality_value"], row["latency_value"]) for row in measured] == [
        ("320", "ASR_BLEU", "18.2", "655.0"),
        ("offline", "ASR_BLEU", "39.0", "4815.0"),
        ("320", "ASR_BLEU_silence", "18.2", "655.0"),
        ("offline", "ASR_BLEU_silence", "39.0", "4815.0"),
    ]
    foreign = [row for row in rows if row["origin"] == "published"]
    assert foreign and all(row["data"] == "CVSS-C Fr-En" and "ACL 2024" in row["source"] for row in foreign)


def test_kinds_of_curves(speech: Path) -> None:
    rows = load_results(speech).rows
    lines = curves.curves_of(rows, "speech", "StartOffset")
    kinds = [line.kind for line in lines]
    assert kinds == ["measured"] * 2 + ["computation-aware"] * 2 + ["published"] * 2
    assert all("published (other data), for orientation" in line.label for line in lines[4:])
    assert lines[0].points == (("320", 655.0, 18.2), ("offline", 4815.0, 39.0))
    assert lines[2].points[0] == ("320", 685.0, 18.2)  # computing time counted


def test_without_a_recogniser_bleu_of_the_text_is_drawn(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path, "speech", OUTPUTS, chunks=("320",), recogniser=None)
    assert curves.pictures(load_results(folder).rows, "speech") == ["StartOffset", "AL_chunks_vs_words"]
    text = page_without_pictures(folder).text
    assert "Recogniser none" in text and "Recognised" not in text


def test_the_page_is_self_contained(text: Path, speech: Path) -> None:
    for folder in (text, speech):
        found = page_of(folder)
        links = [
            value
            for _, attributes in found.elements
            for key, value in attributes.items()
            if key in ("src", "srcset", "href")
        ]
        assert links and all(link.startswith(("data:", "#")) for link in links)
        assert not re.search(r"@import|url\(", (folder / "report.html").read_text("utf-8"))
        assert found.open == []  # every element is closed, in order


def test_accessibility_of_the_page(speech: Path) -> None:
    found = page_of(speech)
    assert ("html", {"lang": "en"}) in found.elements
    assert len(found.all("h1")) == 1 and len(found.all("main")) == 1
    assert all(image["alt"] for image in found.all("img")) and all(sound["aria-label"] for sound in found.all("audio"))
    assert all(cell["scope"] in ("col", "row", "rowgroup") for cell in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))
    identifiers = [attributes["id"] for _, attributes in found.elements if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in found.elements:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in identifiers
    pictures = found.all("svg")
    assert len(pictures) == 4 and all(picture["role"] == "img" for picture in pictures)  # 2 utterances, 2 chunk sizes
    assert len(found.all("title")) == 5 and len(found.all("desc")) == 4


def test_the_page_is_complete(text: Path) -> None:
    found = page_of(text)
    assert "3 of 4" not in found.text and "1 of 4 outputs empty" in found.text
    assert "Empty output: no word and no sample." in found.text and "320 ms: sentence_3" in found.text
    assert REFERENCES[2] in found.text and "<home>" not in (text / "report.html").read_text("utf-8")
    assert "Segment size 40 ms" in found.text and "nrefs:1|case:mixed|tok:13a" in found.text
    assert "other data and other models, for orientation only, not measured here" in found.text
    checked = [choice["value"] for choice in found.all("input") if "checked" in choice]
    assert checked == ["320"] and [choice["value"] for choice in found.all("input")] == ["160", "320", "offline"]
    results = load_results(text)
    for row in results.rows:
        for name, value in (row["quality"] | row["latency"] | row["cost"]).items():
            assert value is None or (describe(name).label in found.text and shown(name, value) in found.text)


def test_words_and_times_of_a_timeline_are_in_a_table(text: Path) -> None:
    html = (text / "report.html").read_text("utf-8")
    at_320 = re.search(r"<caption>Words at 320 ms</caption>.*?</table>", html).group()
    cells = [unescape(cell) for cell in re.findall(r"<t[hd](?: scope=\"row\")?>(.*?)</t[hd]>", at_320)]
    # A word a chunk, from the second one on: 2 * 320 + 15 ms; then one every 320 ms.
    times = ["0.655 s", "0.975 s", "1.295 s", "1.615 s", "1.935 s", "2.255 s"]
    assert cells == [cell for pair in zip(times, REFERENCES[0].split()) for cell in pair]


def test_sounds_of_the_page(speech: Path) -> None:
    """The players hold the source, the translation without gaps, and both in stereo as played."""
    sounds = page_of(speech).all("audio")
    assert [sound["aria-label"].split(",")[0] for sound in sounds[:3]] == ["Source", "Translation", "Playback"]
    decoded = []
    for sound in sounds[:3]:
        content = base64.b64decode(sound["src"].partition("base64,")[2])
        decoded.append(soundfile.read(io.BytesIO(content), always_2d=True)[0])
    source, translation, both = decoded
    assert len(source) == pytest.approx(16 * SOURCE_MS, abs=1200)
    assert len(translation) == pytest.approx(16 * 6 * 200, abs=1200)  # six words of 200 ms
    # The last word is available after 2 * 320 + 15 + 5 * 320 ms and lasts 200 ms.
    assert both.shape[1] == 2 and len(both) == pytest.approx(16 * (2255 + 200), abs=1200)
    assert np.abs(both[: 16 * 600, 1]).max() < 0.02 < np.abs(both[: 16 * 600, 0]).max()


def test_texts_cannot_change_the_page(tmp_path: Path) -> None:
    """Placeholders, template code and markup in a text are shown as they are."""
    hostile = ["@size@ {{ title }} {% raw %} <script>alert(1)</script> &amp;", '"><img src=x>', "{{ 7*7 }}", "${x}"]
    folder = make_evaluation(tmp_path, outputs=hostile, chunks=("320",))
    write(folder, 4)
    found = page_of(folder)
    for text in hostile:
        assert text in found.text
    html = (folder / "report.html").read_text("utf-8")
    assert "<script>alert" not in html and "<img src=x>" not in html and html.count("<script>") == 1


def test_gaps_of_an_utterance(speech: Path) -> None:
    ((at_320, offline),) = collect(load_results(speech), [0])
    assert [start for start, _ in at_320.playback.gaps] == [855, 1175, 1495, 1815, 2135]
    assert {duration for _, duration in at_320.playback.gaps} == {120.0}
    assert offline.playback.gaps == [] and offline.playback.start_ms == SOURCE_MS
    assert at_320.words[0] == (655.0, "the")


def test_recognised_words_are_placed_in_playback(tmp_path: Path) -> None:
    from nast_s2x.evaluation.log import read_log, read_output_pieces
    from nast_s2x.evaluation.transcripts import audio_hash

    folder = make_evaluation(tmp_path, "speech", OUTPUTS, chunks=("320",))
    sound = np.concatenate(read_output_pieces(read_log(folder / "320")[0]))
    words = [["the", 0.0, 0.1], ["old", 0.25, 0.3]]  # the second one in the second piece, which starts at 975 ms
    entry = {"audio": audio_hash(sound), "recogniser": "bundle:ears", "text": "the old", "words": words}
    (folder / "transcripts.jsonl").write_text(json.dumps(entry) + "\n")
    ((at_320,), (unknown,)) = collect(load_results(folder), [0, 1])
    assert at_320.recognised == ((755.0, "the"), (1075.0, "old")) and unknown.recognised == ()
    assert "Words of the recogniser" in page_without_pictures(folder).text


def test_shown_utterances_are_spread_from_best_to_worst() -> None:
    scores = [{"index": i, "BLEU": float(value)} for i, value in enumerate([50, 10, 90, 70, 30, 80, 20])]
    assert spread(scores, 3) == [2, 0, 1] and spread(scores, 1) == [2] and spread(scores, 0) == []
    assert spread(scores, 99) == [2, 5, 3, 0, 4, 6, 1]
    heard = [entry | {"ASR_BLEU": -entry["BLEU"] + 100} for entry in scores]  # ASR-BLEU decides
    assert spread(heard, 2) == [1, 2]
    assert spread([{"index": i, "BLEU": None} for i in range(5)], 2) == [0, 4]


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path, outputs=OUTPUTS, chunks=("320",))
    (folder / "recordings" / "0.wav").unlink()
    assert "0.wav is missing" in page_without_pictures(folder).text


def test_transcripts_of_sources_from_a_manifest(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path, outputs=OUTPUTS, chunks=("320",))
    (tmp_path / "list.tsv").write_text("id\taudio\tsrc_text\nsentence_0\t0.wav\tle vieux pont\n", encoding="utf-8")
    scores = json.loads((folder / "scores.json").read_text())
    scores["settings"]["source"]["path"] = str(tmp_path / "list.tsv")
    (folder / "scores.json").write_text(json.dumps(scores))
    assert "le vieux pont" in page_without_pictures(folder).text
    with (tmp_path / "list.tsv").open("a", encoding="utf-8") as file:
        file.write("sentence_0\t0.wav\tun autre pont\n")  # as in another split
    assert load_results(folder).source_texts() == {}


def test_settings_of_the_model_are_not_taken_for_zero(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path, outputs=OUTPUTS, chunks=("320",))
    assert "Decoder wait as in training" in page_without_pictures(folder).text
    scores = json.loads((folder / "scores.json").read_text())
    for wait, text in ((0, "0 chunks"), (1, "1 chunk"), (2, "2 chunks")):
        scores["settings"]["wait_chunks"] = wait
        (folder / "scores.json").write_text(json.dumps(scores))
        assert ("Decoder wait", text) in settings(load_results(folder))


def test_figures_without_explanation_are_shown_too(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path, outputs=OUTPUTS, chunks=("320",))
    scores = json.loads((folder / "scores.json").read_text())
    scores["rows"][0]["latency"] |= {"NewLag": 12.5, "NewLag_CA": 17.25}
    scores |= {"settings": None, "notes": ["a note"]}  # logs written by SimulEval
    (folder / "scores.json").write_text(json.dumps(scores))
    text = page_without_pictures(folder).text
    assert "NewLag 12.50" in text and "NewLag_CA 17.25" in text and "a note" in text


def test_every_figure_of_the_scores_is_explained() -> None:
    from nast_s2x.evaluation.scoring import COST_FIGURES
    from nast_s2x.metrics.latency import speech_latency, text_latency

    names = [*QUALITY_FIGURES, *COST_FIGURES]
    names += text_latency([500.0, 900.0], [510.0, 920.0], 1000.0, 2)
    names += speech_latency([500.0], [510.0], [300.0], 1000.0, 2, [0.2])
    assert not [name for name in names if not describe(name).meaning]


def test_numbers_as_shown() -> None:
    assert shown("AL", -0.2) == "0" and shown("AL", -393.4) == "−393" and shown("BLEU", None) == "–"
    assert shown("AP_CA", 0.5) == "0.500" and describe("AL_CA").label == "AL (CA)"


def test_outline_of_a_waveform_is_as_high_as_its_samples() -> None:
    path = wave_path(np.array([0, 1, 0, -0.5] * 100, np.float32), left=10, right=90, middle=50, height=40, peak=1)
    xs, ys = zip(*(map(float, point.split()) for point in path[1:-1].split("L")))
    assert min(xs) == 10 and max(xs) == 90
    assert min(ys) == pytest.approx(30, abs=0.5) and max(ys) == pytest.approx(60, abs=0.5)
    assert wrapped("a " + "b" * 30 + " c d") == ["a", "b" * 30, "c d"] and wrapped("") == []


def test_blocks_of_words_do_not_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    words = [(float(t), "word " * int(n)) for t, n in zip(np.sort(rng.uniform(0, 9000, 120)), rng.integers(1, 12, 120))]
    beside, compared = timeline._Block.is_beside, []
    monkeypatch.setattr(timeline._Block, "is_beside", lambda a, b: compared.append(a) or beside(a, b))
    for ending in (False, True):
        compared.clear()
        blocks = timeline._place(words, 10000, ending)
        entries = sum(len(block.lines) for block in blocks)
        assert len(compared) <= entries * len(blocks)  # one comparison per line and pair, for any number of rows
        placed: list[tuple[int, timeline._Block]] = []
        for block in blocks:
            rows = {row for row, other in placed if not beside(block, other)}
            size = len(block.lines)
            free = [row for row in range(block.row + 1) if not rows & set(range(row, row + size))]
            assert free == [block.row]  # the first row where it fits
            placed += [(row, block) for row in range(block.row, block.row + size)]


def test_compressed_sound_is_whole_and_small() -> None:
    samples = tone(1000, 300)
    content, media_type = compressed(samples)
    assert media_type.startswith("audio/") and len(content) < 2 * len(samples)
    decoded, rate = soundfile.read(io.BytesIO(content))
    assert rate == 16000 and np.corrcoef(decoded[: len(samples)], samples[: len(decoded)])[0, 1] > 0.99


def broken(tmp_path: Path, change: dict) -> Path:
    folder = make_evaluation(tmp_path, outputs=OUTPUTS[:2], chunks=("320",))
    path = folder / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "scores.json must have format 1, but has 2"),
        ({"target_type": "dance"}, "`target_type` must be one of text, speech, but is 'dance'"),
        ({"rows": []}, "`rows` must have a row"),
        ({"rows": [{"chunk": "320"}]}, r"`rows\[0\]` needs the entry `rows\[0\].utterances`"),
    ],
)
def test_scores_that_cannot_be_read(tmp_path: Path, change: dict, message: str) -> None:
    folder = broken(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        write(folder)
    assert not (folder / "report.html").exists() and not (folder / "curves.csv").exists()


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="scores.json is missing"):
        write(tmp_path)
    folder = make_evaluation(tmp_path / "speech", "speech", OUTPUTS, chunks=("320",))
    with pytest.raises(ValueError, match="0 or more, got -1"):
        write(folder, shown=-1)
    (folder / "320" / "wavs" / "0_pred.wav").unlink()
    with pytest.raises(FileNotFoundError, match="0_pred.wav is missing"):
        write(folder)
    (folder / "320" / "utterances.jsonl").write_text('{"index": 0}\nnonsense\n')
    with pytest.raises(ValueError, match="utterances.jsonl, line 2"):
        write(folder)
    (folder / "320" / "utterances.jsonl").write_bytes(b'{"index": 0, "id": "\xff"}\n')
    with pytest.raises(NastError, match=r"utterances.jsonl: not UTF-8 text"):
        write(folder)
    (folder / "320" / "utterances.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="utterances.jsonl is missing"):
        write(folder)
    (folder / "scores.json").write_text("{")
    with pytest.raises(ValueError, match="scores.json is not valid JSON"):
        write(folder)
    assert not (folder / "report.html").exists()


def test_scores_of_other_utterances_than_the_log(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path, outputs=OUTPUTS, chunks=("320",))
    path = folder / "320" / "utterances.jsonl"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[1:]) + '{"index": 9, "BLEU": 1}\n')
    with pytest.raises(ValueError, match="utterance 9 is not in both"):
        write(folder)


# In a browser.

# Width, visible panels, elements beyond the window, and lines that move with a sound.
MEASURE = """(() => {
  const width = document.documentElement.clientWidth, out = [];
  for (const element of document.querySelectorAll("body *")) {
    const inside = element.closest(".scroll"), right = element.getBoundingClientRect().right;
    if ((!inside || inside === element) && right > width + 0.5) out.push(element.tagName);
  }
  const all = [...document.querySelectorAll(".panel")];
  const panels = all.filter((panel) => panel.offsetParent).map((panel) => panel.className);
  const marks = [...document.querySelectorAll(".playhead")].filter((line) => line.getClientRects().length);
  return { width, scroll: document.documentElement.scrollWidth, out, panels, marks: marks.length };
})()"""
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@needs_chromium
def test_layout_on_a_phone_and_a_desk(speech: Path, tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    from PIL import Image

    browser = Browser(tmp_path / "profile", "--hide-scrollbars")
    try:
        for width in (390, 1280):
            browser.resize(width, 1400)
            browser.open((speech / "report.html").as_uri())
            found = browser.run(MEASURE)
            assert found["width"] == found["scroll"] == width and found["out"] == []
            assert found["panels"] == ["panel panel-0"] * 2  # the chosen chunk size of both utterances, no other
            assert found["marks"] == 0  # nothing plays
            with Image.open(io.BytesIO(browser.screenshot())) as image:
                assert image.size == (width, 1400)
                grey = np.asarray(image.convert("L"), float)
            # Ink in every quarter of the page: text, tiles, curves.
            assert all(quarter.std() > 5 for quarter in np.array_split(grey, 4))
    finally:
        browser.close()
