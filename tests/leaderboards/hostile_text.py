"""Names, titles and addresses that try to break out of a page. None of them may do anything but be read."""

from dataclasses import replace

from fake_records import UPSTREAMS, build

from leaderboards.site.entries import Column, Entry, Score

MARK = "window.pwned=1"
TEXTS = (
    f"<script>{MARK}</script>",
    f'"onmouseover="{MARK}',
    f"' onfocus='{MARK}' x='",
    f"javascript:{MARK}",
    f"--><img src=x onerror={MARK}>",
    f"</title></svg></table><svg onload={MARK}>",
    "\u202eevil\u2066 \u200fname\u0007\x00",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &amp; &#x6a;",
    "x" * 300,
    "深い 模型 𝔰𝔭𝔢𝔢𝔠𝔥",
)
URLS = (f"javascript:{MARK}", f"data:text/html,<script>{MARK}</script>", f'https://a.example/"onclick="{MARK}', "//x")
NAME = f"it's a&b #1 %41 {MARK} (ü)"
"""As much mischief as the name of a folder allows."""


def published():
    """Published rows with every hostile text in every field."""
    column = Column("asr", "WER", False)
    for place, text in enumerate(TEXTS):
        yield Entry(
            origin="published", suite="superb", name=text, title=text, params=1e6 * (place + 1), macs=float(place + 1),
            scores={column: Score(5.0 + place, note=text, sign="§"), Column(text[:40], text, True): Score(1.0)},
            teacher=text, facts=((text, text),), sources=tuple((text, url) for url in URLS),
        )  # fmt: skip


def records():
    """Records of an upstream whose card is hostile throughout."""
    made = build("one", upstreams={"wavlm_mini": UPSTREAMS["wavlm_mini"]}, tasks=("asr", "ks"))
    for record in made:
        yield replace(
            record,
            upstream=dict(record.upstream)
            | {"name": NAME, "title": TEXTS[0], "licence": TEXTS[1], "exposes": TEXTS[4], "family": TEXTS[5]}
            | {"teacher": TEXTS[3]},
            notes=list(TEXTS),
        )
