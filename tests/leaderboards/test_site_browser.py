"""The page in headless Chromium, from file://: no errors, no requests, and all that it promises to do."""

import chrome
import hostile_text as hostile
import pytest
from fake_records import SCORES, UPSTREAMS, build
from site_page import NAMES, choose, column, press, sample, tick

from harness import records
from harness.show import number
from leaderboards.site import build as site

pytestmark = pytest.mark.skipif(chrome.find() is None, reason="Chromium is not installed (Debian: chromium)")

CARD = "(c => c && !c.hidden ? c.textContent : null)(document.getElementById('card'))"
FIRST = "#board tbody tr:not([hidden]) td:not([hidden]) a.score"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = chrome.Chrome(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for record in [*build("one"), *build("two", tasks=("asr", "ks"))]:
        records.save(record, folder)
    return site.write(folder, folder / "site").parent


@pytest.fixture
def first(browser, page):
    """The first page, at desk size, in light."""
    browser.view(1280, 900)
    browser.open(f"file://{page}/index.html")
    browser.js("localStorage.clear()")
    return browser


def test_pages_load_without_a_word_and_ask_only_for_their_own_files(browser, page):
    browser.view(1280, 900)
    for path in sample(page):
        browser.open(f"file://{path}")
        assert browser.problems() == [], path
        asked = [url for url in browser.requests() if not url.startswith("data:,")]
        assert len(asked) >= 5
        assert not [url for url in asked if not url.startswith(f"file://{page}/")]


def test_the_policy_stops_evaluation_and_requests(first):
    found = first.call(
        "Runtime.evaluate", allowUnsafeEvalBlockedByCSP=False, returnByValue=True,
        expression="(() => { try { return (0, eval)('1') } catch (e) { return e.name } })()",
    )  # fmt: skip
    assert found["result"]["value"] == "EvalError"
    stopped = first.js(
        "new Promise(done => { addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
        " fetch('https://example.org/').catch(() => 0); setTimeout(() => done('nothing'), 2000) })"
    )
    assert stopped == "connect-src"


def test_a_column_sorts_best_first_and_back_with_missing_values_last(first):
    choose(first, "suite", "superb")
    assert None in column(first, "ASV")
    for title, higher in (("ASR", False), ("SID", True), ("ASV", False)):
        press(first, title)
        values = column(first, title)
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=higher)
        assert len(known) > 40
        assert set(values[len(known) :]) <= {None}
        state = first.js("[...document.querySelectorAll('th[aria-sort]')].map(h => h.ariaSort)")
        assert state == ["descending" if higher else "ascending"]
        press(first, title)
        values = column(first, title)
        assert values[: len(known)] == sorted(known, reverse=not higher)
    assert "sorted by ASV" in first.js("document.getElementById('status').textContent")


def test_the_keyboard_sorts(first):
    first.js("document.querySelector('.names th:first-child button').focus()")
    first.key("Enter", 13, "\r")
    first.js("new Promise(d => setTimeout(d, 60))")
    names = first.js(NAMES)
    assert names == sorted(UPSTREAMS)
    first.key(" ", 32, " ")
    first.js("new Promise(d => setTimeout(d, 60))")
    assert first.js(NAMES) == sorted(UPSTREAMS)[::-1]


def test_filters(first):
    assert set(first.js(NAMES)) == set(UPSTREAMS)
    assert first.js("document.getElementById('status').textContent").startswith("5 of ")
    choose(first, "low", "2")
    assert set(first.js(NAMES)) == {"random_mini", "wavlm_mini"}
    choose(first, "low", "")
    choose(first, "high", "2")
    assert set(first.js(NAMES)) == {"fbank", "logmel", "distilled_wavlm"}
    choose(first, "q", "FBANK")
    assert first.js(NAMES) == ["fbank"]
    choose(first, "suite", "")
    choose(first, "high", "")
    found = first.js(NAMES)
    assert found.count("fbank") == 2
    assert {"FBANK", "FBANK (paper)"} < set(found)
    assert "do not compare" in first.js("document.getElementById('status').textContent")
    tick(first, "origin", "published", on=False)
    assert first.js(NAMES) == ["fbank", "fbank"]
    first.click("button[type=reset]")
    first.js("new Promise(d => setTimeout(d, 60))")
    assert set(first.js(NAMES)) == set(UPSTREAMS)


def heads(browser):
    return browser.js(
        "[...document.querySelectorAll('.names th')].filter(h => !h.hidden)"
        ".map(h => h.textContent.trim().split(' ')[0])"
    )


def test_groups_and_empty_columns(first):
    everything = heads(first)
    assert {"ASR", "SID", "IC", "ER"} < set(everything)
    assert not {"QbE", "SD", "Suite"} & set(everything)
    tick(first, "group", "speaker", on=False)
    assert [name for name in everything if name not in ("SID", "ASV")] == heads(first)
    spans = first.js(
        "[...document.querySelectorAll('.groups > *')].filter(h => !h.hidden).reduce((n, h) => n + h.colSpan, 0)"
    )
    assert spans == len(heads(first))
    choose(first, "suite", "two")
    assert {"ASR", "KS"} < set(heads(first))
    assert not {"PR", "IC", "ER"} & set(heads(first))


def test_no_head_hides_a_group_when_the_table_is_moved(browser, page):
    browser.view(700, 800)
    browser.open(f"file://{page}/index.html")
    box = "document.querySelector('.scroll.tall')"
    for left in (0, 150, 300, 450):
        browser.js(f"{box}.scrollLeft = {left}")
        covered = browser.js(
            "(s => [...document.querySelectorAll('.groups th:not([hidden])')].filter(h => { const r = "
            "h.getBoundingClientRect(); const edge = document.querySelector('.names th').getBoundingClientRect().right;"
            " const x = (Math.max(r.left, edge) + Math.min(r.right, innerWidth - 20)) / 2;"
            " if (r.right < edge + 4 || r.left > innerWidth - 24) return false;"
            " return document.elementFromPoint(x, r.top + r.height / 2) !== h; }).map(h => h.textContent))()"
        )
        assert covered == []
    spans = browser.js(
        "[...document.querySelectorAll('.groups > :not([hidden])')].reduce((sum, cell) => sum + cell.colSpan, 0)"
    )
    assert spans == browser.js("[...document.querySelectorAll('.names > :not([hidden])')].length")


def test_no_rows_say_why(first):
    status = "document.getElementById('status').textContent"
    choose(first, "suite", "one")
    tick(first, "origin", "measured", False)
    assert "suite one has measured rows only" in first.js(status)
    tick(first, "origin", "published", False)
    assert "no origin is ticked" in first.js(status)
    tick(first, "origin", "measured", True)
    choose(first, "low", "9")
    choose(first, "high", "1")
    assert "parameters from above to" in first.js(status)
    choose(first, "high", "99")
    assert "no row passes all filters together" in first.js(status)
    choose(first, "low", "")
    assert first.js(status).endswith("rows")


def test_decimals_stand_below_each_other(first):
    """Decimal points of all scores of a column, with one digit behind or two, have one place; bold ones are wider."""
    choose(first, "suite", "")
    ends = first.js(
        "[...document.querySelectorAll('#board tbody tr')].map(r => r.querySelector('a.score:not(.best)'))"
        ".filter(Boolean)"
        ".map(a => { const t = document.createRange(); const n = a.firstChild, at = n.data.indexOf('.');"
        " t.setStart(n, 0); t.setEnd(n, at); return [a.closest('td').cellIndex, t.getBoundingClientRect().right]; })"
    )
    for place in {index for index, _ in ends}:
        points = [right for index, right in ends if index == place]
        assert max(points) - min(points) < 1.5


def test_filters_live_in_the_address(first, page):
    choose(first, "suite", "superb")
    choose(first, "q", "hubert")
    address, names = first.js("location.href"), first.js(NAMES)
    assert len(names) > 5
    first.open(address)
    assert first.js(NAMES) == names


def test_pointing_at_a_score_shows_interval_and_record(first, page):
    first.hover(FIRST)
    said = first.js(CARD)
    assert "95 % interval [" in said
    assert "record" in said
    link = first.js("document.querySelector('#card a').getAttribute('href')")
    assert records.load(page / link).upstream["name"] == first.js(NAMES)[0]
    first.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    first.js("new Promise(d => setTimeout(d, 400))")
    assert first.js(CARD) is None


def test_the_keyboard_reaches_the_record(first):
    first.js(f"document.querySelector({FIRST!r}).focus()")
    assert "95 % interval" in first.js(CARD)
    assert "95 % interval" in first.js(
        "document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent"
    )
    first.key("Tab", 9)
    assert first.js("document.activeElement.textContent") == "record"
    first.key("Escape", 27)
    assert first.js(CARD) is None


def test_figures_answer_pointer_and_keyboard(browser, page):
    browser.view(1280, 900)
    browser.open(f"file://{page}/tasks/asr.html")
    browser.hover(".dots a.measured")
    best = min(UPSTREAMS, key=lambda name: SCORES[name][0])
    assert f"{best}ASR WER {number(SCORES[best][0])} %95 % interval" in browser.js(CARD)
    browser.js("document.querySelector('.scatter a.measured').focus()")
    assert "M parameters" in browser.js(CARD)
    assert browser.problems() == []


def test_details_are_where_the_score_leads(first, page):
    address = first.js(f"document.querySelector({FIRST!r}).href")
    first.open(address)
    row = first.js("document.querySelector(':target').textContent")
    assert number(SCORES["fbank"][0]) in row
    assert first.problems() == []


GROUND = "getComputedStyle(document.documentElement).backgroundColor"


def test_light_and_dark(browser, page):
    browser.view(1280, 900, dark=False)
    browser.open(f"file://{page}/index.html")
    browser.js("localStorage.clear()")
    browser.open(f"file://{page}/index.html")
    light = browser.js(GROUND)
    browser.view(1280, 900, dark=True)
    dark = browser.js(GROUND)
    assert light == "rgb(255, 255, 255)"
    assert max(map(int, dark.removeprefix("rgb(").removesuffix(")").split(","))) < 40
    for state, ground in (("light", light), ("dark", dark), ("auto", dark), ("light", light)):
        browser.click("#theme")
        assert browser.js("document.getElementById('theme').textContent") == f"Theme: {state}"
        assert browser.js(GROUND) == ground
    browser.open(f"file://{page}/tasks/asr.html")
    assert browser.js(GROUND) == light
    browser.js("localStorage.clear()")


CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255); };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = (c) => { const [r, g, b] = c.map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { let found = [0, 0, 0, 0]; for (; e; e = e.parentElement) {
    const c = rgba(getComputedStyle(e).backgroundColor); if (c[3]) { found = c; break; } }
    return found[3] ? found : rgba(getComputedStyle(document.documentElement).backgroundColor); };
  const worst = [];
  let count = 0;
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('[hidden], noscript, option') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    let behind = ground(e);
    const cell = e.ownerSVGElement && e.previousElementSibling?.querySelector('.ink');
    if (cell) { const ink = rgba(getComputedStyle(cell).fill); ink[3] = +cell.getAttribute('fill-opacity');
      behind = over(ink, behind); }
    const front = over(rgba(e.ownerSVGElement ? style.fill : style.color), behind);
    const [a, b] = [light(front), light(behind)].sort((x, y) => y - x);
    count += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) worst.push([e.tagName, e.textContent.slice(0, 30), (a + 0.05) / (b + 0.05)]);
  }
  return [count, worst];
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_of_all_text_is_at_least_4_5(browser, page, dark):
    browser.view(1280, 900, dark=dark)
    for path in sample(page):
        browser.open(f"file://{path}")
        count, worst = browser.js(CONTRAST)
        assert worst == [], path
        assert count > 20


def test_on_a_phone(browser, page):
    browser.view(390, 780, phone=True)
    for path in sample(page):
        browser.open(f"file://{path}")
        assert browser.js("document.documentElement.scrollWidth") <= 390, path
    browser.open(f"file://{page}/index.html")
    assert browser.js("document.querySelector('#filters details').open") is False
    scroll = "document.querySelector('.scroll.tall')"
    assert browser.js(f"{scroll}.scrollWidth > {scroll}.clientWidth + 100")
    seen = browser.js(f"(b => b.right)(document.querySelector({FIRST!r}).getBoundingClientRect())")
    assert seen <= 390  # a score without scrolling: the columns of costs are hidden
    assert browser.js("document.querySelector('[data-column=Params]').hidden")
    left = "document.querySelector('#board tbody th').getBoundingClientRect().left"
    before = browser.js(left)
    browser.js(f"{scroll}.scrollLeft = 300")
    assert browser.js(left) == pytest.approx(before, abs=1)
    browser.tap("#board tbody tr:nth-child(2) a.score")
    browser.js("new Promise(d => setTimeout(d, 400))")
    assert browser.js("location.pathname").endswith("index.html")
    assert "95 % interval" in browser.js(CARD)
    box = browser.js("(b => [b.left, b.right])(document.getElementById('card').getBoundingClientRect())")
    assert box[0] >= 0
    assert box[1] <= 390
    assert browser.problems() == []


def test_everything_that_can_be_reached_has_a_name(browser, page):
    """As the browser tells a screen reader."""
    browser.view(1280, 900)
    for path in sample(page):
        browser.open(f"file://{path}")
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node["ignored"]]
        roles = {"link", "button", "checkbox", "textbox", "searchbox", "spinbutton", "combobox", "region", "table"}
        named = [node for node in shown if node["role"]["value"] in roles]
        assert len(named) > 15
        assert not [node for node in named if not node.get("name", {}).get("value")], path
        found = {node["role"]["value"] for node in shown}
        assert {"table", "columnheader", "rowheader", "main", "banner", "navigation", "contentinfo"} <= found


def test_hostile_text_does_nothing(browser, tmp_path, monkeypatch):
    for record in hostile.records():
        records.save(record, tmp_path / "results")
    monkeypatch.setattr(site, "published_entries", lambda: (list(hostile.published()), list(hostile.TEXTS)))
    page = site.write(tmp_path / "results", tmp_path / "page").parent
    browser.view(1280, 900)
    for path in sorted(page.rglob("*.html")):
        browser.open(f"file://{path}")
        browser.js("document.querySelectorAll('a, th, td, rect, circle').forEach(e => { e.dispatchEvent(new Event("
                   "'mouseover', {bubbles: true})); e.focus?.(); })")  # fmt: skip
        assert browser.js("window.pwned ?? null") is None, path
        assert browser.problems() == [], path
    browser.open(f"file://{page}/index.html")
    choose(browser, "suite", "superb")
    assert hostile.TEXTS[0] in browser.js(NAMES)
    browser.hover(FIRST)
    assert hostile.TEXTS[0] in browser.js(CARD)
    assert browser.js("window.pwned ?? null") is None
