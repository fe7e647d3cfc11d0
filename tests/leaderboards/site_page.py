"""What tests of the page in a browser find on it and do to it."""

import json

ROWS = "[...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden)"
NAMES = f"{ROWS}.map(r => r.cells[0].textContent.trim())"


def sample(page):
    """One page of every kind."""
    measured = sorted((page / "measured").glob("*.html"))
    published = sorted((page / "published").glob("*.html"))
    return [
        page / "index.html",
        page / "tasks" / "asr.html",
        page / "tasks" / "overall.html",
        measured[0],
        published[0],
    ]


def column(browser, title):
    """The values of a column as they stand, shown rows only; None where there is no value."""
    return browser.js(
        f"(i => {ROWS}.map(r => r.cells[i].dataset.sort === '' ? null : +r.cells[i].dataset.sort))"
        f"([...document.querySelectorAll('.names th')].findIndex(h => h.textContent.trim().startsWith({title!r})))"
    )


def press(browser, title):
    browser.js(
        f"[...document.querySelectorAll('.names th')].find(h => h.textContent.trim().startsWith({title!r}))"
        ".querySelector('button').id = 'pressed'"
    )
    browser.click("#pressed")
    browser.js("document.getElementById('pressed').removeAttribute('id'); new Promise(d => setTimeout(d, 60))")


def choose(browser, name, value):
    browser.js(
        f"(f => {{ f.{name}.value = {json.dumps(value)}; f.dispatchEvent(new Event('input')); }})"
        "(document.getElementById('filters'))"
    )


def tick(browser, name, value, on):
    browser.js(
        f"(b => {{ b.checked = {json.dumps(on)}; b.form.dispatchEvent(new Event('input')); }})"
        f"(document.querySelector('input[name={name}][value={value}]'))"
    )
