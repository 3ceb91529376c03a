"""Report pages as people meet them: read aloud, by keyboard, on a first screen, on paper, in the dark, in greyscale."""
from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import BROWSER, Tab, opened
from fake_runs import passing_runs

from pil_research.config import PILConfig
from pil_research.research.book_walk import walk_to_last_session
from pil_research.research.explain import explain_book
from pil_research.research.explain_page import write_explain_run
from pil_research.research.index import build_index
from pil_research.research.ladder_result import panel_facts
from pil_research.research.page import (
    COLOURS,
    facts_html,
    figure_html,
    number,
    page_html,
    relation,
    table_html,
    text,
    verdict_html,
)
from pil_research.research.stress_page import EVENT
from pil_research.research.synthetic_panel import synthetic_panel

needs_browser = pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome is installed")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A report page and an index; with PIL_PAGES, a folder of runs, every page in it as well."""
    home = tmp_path_factory.mktemp("pages")
    panel = synthetic_panel(7, n_sleeves=4, n_symbols=10, n_days=500)
    book = explain_book(walk_to_last_session(panel, PILConfig(), sessions=20), PILConfig(), draws=20)
    write_explain_run(book, panel_facts(panel), PILConfig(), home, run_id="20260101T000000Z-abcdef", params={"draws": 20})
    more = Path(os.environ.get("PIL_PAGES", "/nonexistent"))
    return [home / "report.html", build_index(passing_runs(home / "runs")), *more.glob("*.html"),
            *more.glob("*/2*/report.html")]


class Reader(HTMLParser):
    """Collects what a screen reader would miss."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.drawings, self.named = 0, True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = dict(attrs)
        self.ids += [str(a["id"])] if "id" in a else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        if tag == "table":
            self.named = "aria-label" in a
        elif tag == "caption":
            self.named = True
        elif tag == "th" and "scope" not in a:
            self.missing.append("th without scope")
        elif tag == "svg":
            if not self.drawings and (a.get("role") != "img" or not str(a.get("aria-label") or "").strip()):
                self.missing.append("picture without role or name")
            self.drawings += 1
        if int(a.get("tabindex") or 0) > 0 or (tag == "img" and "alt" not in a):
            self.missing.append(f"{tag}: tabindex or alt")

    def handle_endtag(self, tag: str) -> None:
        self.drawings -= tag == "svg"
        if tag == "table" and not self.named:
            self.missing.append("table without name")


def test_a_screen_reader_finds_its_way(pages: list[Path]) -> None:
    for page in pages:
        words = page.read_text(encoding="utf-8")
        reader = Reader()
        reader.feed(words)
        assert not reader.missing and [k for k, n in Counter(reader.ids).items() if n > 1] == [], page
        steps = zip(reader.headings, reader.headings[1:], strict=False)
        assert reader.headings[0] == 1 and all(b <= a + 1 for a, b in steps), page
        assert words.count("<main>") == 1 and 'lang="en"' in words and "<th scope=\"row\"></th>" not in words


def test_numbers_in_words_have_a_true_minus_and_nothing_else_changes() -> None:
    assert text("fell -0.5 to (-3)") == "fell −0.5 to (−3)" and text("x -.5") == "x −.5"
    for same in ("2020-09-30", "1/N-risk", "1e-12", "20261123T055555Z-0c6b3a", "a/-5", "seed=-5", "--jobs", "sha-1"):
        assert text(same) == same
    assert (relation("<="), relation(">="), relation("<")) == ("≤", "≥", "<") and number(-0.0) == "0.00"


def contrast(a: str, b: str) -> float:
    """WCAG contrast of two #rgb or #rrggbb colours."""
    def light(c: str) -> float:
        c = c.lstrip("#")
        c = "".join(2 * x for x in c) if len(c) == 3 else c
        part = [int(c[i:i + 2], 16) / 255 for i in (0, 2, 4)]
        r, g, b = (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in part)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_from_its_ground_in_light_and_dark() -> None:
    light, dark = COLOURS.split("@media screen")
    for sheet in (light, dark):
        colour = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", sheet))
        for name in ("ink", "muted", "pass", "fail", "tie"):
            assert min(contrast(colour[name], colour["bg"]), contrast(colour[name], colour["panel"])) >= 4.5, name
        assert all(contrast(colour[f"c{i}"], colour["bg"]) >= 3.0 for i in range(8))


def test_links_are_underlined_and_focus_is_seen() -> None:
    page = page_html("x", '<a href="index.html">y</a>')
    assert ":focus-visible{outline:3px" in page and "text-decoration:none" not in page


def test_a_picture_says_how_wide_it_was_drawn_and_scrolls_by_itself() -> None:
    out = figure_html('<svg class="plot" viewBox="0 0 820.8 180"></svg>', "read <this>")
    assert out == ('<figure><div class="scroll" style="--w:821px"><svg class="plot" viewBox="0 0 820.8 180"></svg></div>'
                   "<figcaption>read &lt;this&gt;</figcaption></figure>")
    assert figure_html("<svg></svg>", "x").startswith('<figure><div class="scroll"><svg>')


def test_every_caption_has_the_part_that_stays_in_view(pages: list[Path]) -> None:
    for page in pages:
        words = page.read_text(encoding="utf-8")
        assert words.count("<caption") == words.count("<caption><span>") == words.count("</span></caption>"), page


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with opened(tmp_path_factory.mktemp("browser")) as page:
        yield page


def shown(tab: Tab, page: Path, *, width: int = 1280, height: int = 800, media: str = "screen", scheme: str = "light") -> None:
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    tab.send("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.send("Page.navigate", url=page.as_uri())
    end = time.monotonic() + 20.0
    while tab.value("document.readyState + location.href") != f"complete{page.as_uri()}":
        assert time.monotonic() < end
        time.sleep(0.1)


BOTTOMS = """['h1', '.verdict', 'table', 'figure svg'].map(q => document.querySelector(q)?.getBoundingClientRect().bottom ?? 0)"""
TOO_WIDE = """[...document.querySelectorAll('table, svg.plot, p')].filter(e => e.getBoundingClientRect().right >
document.documentElement.clientWidth + 1).map(e => e.textContent.slice(0, 60))"""
FOLDED = """[...document.querySelectorAll('details')].filter(
d => !d.open && d.lastElementChild.getBoundingClientRect().height < 5).length"""
ALONE = """[...document.querySelectorAll('h2, summary, caption, .lead-in')].filter(
e => getComputedStyle(e).breakAfter !== 'avoid').length"""
DARK_TEXT = """[...document.querySelectorAll('h1, h2, p, td, th, caption, figcaption, summary, svg.plot text')].filter(e => {
const s = getComputedStyle(e); return Math.max(...(e.closest('svg') ? s.fill : s.color).match(/[0-9.]+/g).slice(0, 3)) < 110})
.map(e => e.textContent.slice(0, 40))"""
# what a reader of a phone cannot read: captions cut off, pictures shrunk, facts squeezed, a page wider than its screen
CUT_CAPTIONS = """[...document.querySelectorAll('caption span')].filter(e => e.checkVisibility()).filter(e => {
const r = e.getBoundingClientRect(); return r.left < -0.5 || r.right > document.documentElement.clientWidth + 0.5})
.map(e => e.textContent.slice(0, 40))"""
SHRUNK = """[...document.querySelectorAll('svg.plot')].filter(e => e.checkVisibility() && e.viewBox.baseVal.width)
.map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width).filter(x => x < 0.84)"""
SQUEEZED = """[...document.querySelectorAll('table.facts td')].filter(e => e.checkVisibility()).filter(e => {
const at = document.createRange(), words = [...e.textContent.matchAll(/\\w{2,16}/g)].filter(w => e.firstChild);
const broken = words.filter(w => { at.setStart(e.firstChild, w.index); at.setEnd(e.firstChild, w.index + w[0].length);
return !/[0-9a-f]{16}/.test(w[0]) && at.getClientRects().length > 1});
return broken.length || e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5})
.map(e => e.textContent.slice(0, 40))"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SLID = "document.querySelectorAll('.scroll').forEach(e => { e.scrollLeft = 10000 })"
A4 = 703  # CSS pixels between margins of 12 mm


@needs_browser
@pytest.mark.slow
def test_the_first_screen_holds_title_verdict_table_and_picture(tab: Tab, pages: list[Path]) -> None:
    for page in (p for p in pages if p.name == "report.html"):
        shown(tab, page)
        assert all(0 < b <= 800 for b in tab.value(BOTTOMS)), page


@needs_browser
@pytest.mark.slow
def test_on_paper_nothing_is_cut_off_folded_or_alone(tab: Tab, pages: list[Path], broad: Path) -> None:
    for page in (broad, *pages):
        shown(tab, page, width=A4, height=1030, media="print", scheme="dark")
        assert tab.value(TOO_WIDE) == [] and tab.value(FOLDED) == tab.value(ALONE) == 0, page
        assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"  # no dark paper
        splits = "[...document.querySelectorAll('figure, tr')].filter(e => getComputedStyle(e).breakInside !== 'avoid').length"
        assert tab.value(splits) == 0
        paper: dict[str, Any] = tab.send("Page.printToPDF")
        assert len(paper["data"]) > 10_000


@pytest.fixture(scope="module")
def broad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of what is widest: the table of stress events, facts of long names, a picture 821 points wide, a long word."""
    same = dict.fromkeys(("loss_off", "loss_on", "max_dd", "worst_day", "dd_limit"), 0.1234)
    event = {**same, "from": "2011-04-29", "sessions": 251, "kind": "path", "dd_ok": True, "cut_ok": False, "least_m": 0.2,
             "tier": "THROTTLE", "gross_before": 2.051, "gross_after": 1.843, "gross_off": 2.124, "days_to_floor": 112,
             "L_before": 2.51, "L_after": 1.84}
    table = table_html(pd.DataFrame([event], ["2011 precious metals, invested"]), EVENT, corner="1/N-risk",
                       caption="What it says. " * 20, css="wide")
    facts = facts_html({"Times an operator re-armed it after a 15 % drawdown (lag 0, 1×)": "1,234",
                        "Data hash": "sha256:" + 64 * "0"})
    drawn = figure_html('<svg class="plot" role="img" aria-label="y" viewBox="0 0 820.8 180"></svg>', "It rises. " * 30)
    out = tmp_path_factory.mktemp("broad") / "broad.html"
    out.write_text(page_html("Broad", verdict_html("INDIFFERENT", "HRP against 1/N-risk. " * 6, "None.", "small"), table, facts,
                             drawn), encoding="utf-8")
    return out


@needs_browser
@pytest.mark.slow
def test_on_a_phone_captions_pictures_and_facts_can_be_read(tab: Tab, pages: list[Path], broad: Path) -> None:
    for page in (broad, *pages):
        shown(tab, page, width=400, height=800)
        for script in ("null", SLID):
            tab.value(script)
            assert [tab.value(x) for x in (CUT_CAPTIONS, SHRUNK, SQUEEZED)] == [[], [], []] and tab.value(SIDEWAYS) <= 0, page
        word, headline = (tab.value(f"document.querySelector('.verdict {q}').getBoundingClientRect().{side}")
                          for q, side in ((".word", "bottom"), (".headline", "top")))
        assert headline >= word, page
    shown(tab, broad)
    assert tab.value("document.querySelector('svg.plot').getBoundingClientRect().width > 1000")
    assert tab.value("getComputedStyle(document.querySelector('.verdict')).flexDirection") == "row"


@needs_browser
@pytest.mark.slow
def test_the_keyboard_reaches_every_link_and_fold_in_order(tab: Tab, pages: list[Path]) -> None:
    reached = "[...document.querySelectorAll('a[href], summary')].filter(e => e.checkVisibility())"
    for page in pages:
        shown(tab, page)
        count = min(int(tab.value(f"{reached}.length")), 12)
        seen = []
        for _ in range(3 * count):
            for kind in ("keyDown", "keyUp"):
                tab.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            if (at := tab.value(f"{reached}.indexOf(document.activeElement)")) >= 0:
                seen.append(at)
                assert tab.value("getComputedStyle(document.activeElement).outlineWidth") == "3px", page
            if len(seen) == count:
                break
        assert seen == list(range(count)), page


@needs_browser
@pytest.mark.slow
def test_the_dark_page_is_dark_and_what_is_written_on_it_light(tab: Tab, pages: list[Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare.html"  # text that names no colour is black in a picture
    bare.write_text(page_html("x", '<svg class="plot" role="img" aria-label="y"><text y="20">z</text></svg>'), encoding="utf-8")
    for page in [*pages, bare]:
        shown(tab, page, scheme="dark")
        assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
        assert tab.value(DARK_TEXT) == [], page
    assert [u for u in tab.asked if not u.startswith(("file:", "about:", "data:"))] == []
