"""Tables against cells worked out by hand, and their three formats."""

import io
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from fake_records import UPSTREAMS, build, fake

from leaderboards import tables
from leaderboards.board import board
from leaderboards.render import Cell, Table, csv, escape_latex, escape_markdown, latex, markdown
from leaderboards.resamples import Drawn, Resamples


def row(table, name):
    return next(cells for cells in table.rows if cells[0].text == name)


def column(table, title):
    return [cells[table.header.index(title)] for cells in table.rows]


@pytest.fixture(scope="module")
def shown():
    return board("embedded", build())


def test_results_by_hand(shown):
    table = tables.results(shown)
    assert table.header[:4] == ("Upstream", "ASR WER ↓", "PR PER ↓", "KS Acc ↑")
    assert row(table, "wavlm_mini")[1] == Cell("38.4", "[36.4, 40.4]", "best")
    assert row(table, "distilled_wavlm")[1] == Cell("47.9", "[45.9, 49.9]", "second")
    assert row(table, "logmel")[1] == Cell("88.2", "[86.2, 90.2]")
    assert row(table, "wavlm_mini")[3] == Cell("94.2", "[92.2, 96.2]", "best")
    assert [cell.mark for cell in column(table, "PR PER ↓")] == ["", "", "", "second", "best"]


def test_further_scores_stand_under_their_own_names():
    found = build()
    for record in found:
        if record.task == "pr":
            record.secondary["per_2021"] = {"value": record.value + 0.25, "ci95": [1.0, 2.0]}
    board_with = board("embedded", found)
    table = tables.further(board_with)
    assert "PR per_2021 ↓" in table.header
    value = next(r.value for r in found if r.task == "pr" and r.upstream["name"] == "wavlm_mini")
    place = table.header.index("PR per_2021 ↓")
    assert row(table, "wavlm_mini")[place] == Cell(f"{value + 0.25:.1f}", "[1.0, 2.0]")
    assert "per_2021: phone error rate, decoded as before May 2022" in table.caption


def marks(task, values):
    records = [fake(name, task, value) for name, value in zip(UPSTREAMS, values, strict=False)]
    found = tables.score_cells(board("s", records), [r.upstream["name"] for r in records])
    return [found[r.upstream["name"], task].mark for r in records]


@pytest.mark.parametrize(
    ("task", "values", "expected"),
    [
        ("ks", (1.0, 2.0, 3.0), ["", "second", "best"]),
        ("asr", (1.0, 2.0, 3.0), ["best", "second", ""]),
        ("ks", (3.0, 3.0, 2.0), ["best", "best", "second"]),
        ("asr", (9.0, 10.0, 10.0, 11.0), ["best", "second", "second", ""]),
        ("ks", (50.01, 50.04, 49.0), ["best", "best", "second"]),
        ("ks", (5.0,), [""]),
        ("asr", (100.0, 9.9), ["second", "best"]),
    ],
)
def test_best_and_second(task, values, expected):
    assert marks(task, values) == expected


def test_what_is_not_comparable_is_marked_so_and_cannot_win():
    records = [
        fake("fbank", "ks", 10.0),
        fake("logmel", "ks", 20.0),
        fake("random_mini", "ks", 90.0, protocol={"steps": 1}),
    ]
    table = tables.results(board("s", records))
    assert row(table, "random_mini")[1].text == "90.0†"
    assert row(table, "random_mini")[1].mark == ""
    assert row(table, "logmel")[1].mark == "best"
    assert "random\\_mini on ks" in markdown(table)


def test_missing_cells_are_dashes():
    records = [fake("fbank", "ks", 10.0), fake("logmel", "er", 20.0)]
    table = tables.results(board("s", records))
    assert [cell.text for cell in row(table, "fbank")] == ["fbank", "10.0", "–"]


def test_depth_width_holds_only_what_has_a_shape(shown):
    table = tables.depth_width(shown)
    assert [cells[0].text for cells in table.rows] == ["distilled_wavlm", "random_mini", "wavlm_mini"]
    assert [cell.text for cell in table.rows[0][:5]] == ["distilled_wavlm", "3", "192", "1.44", "47.9"]


def test_tradeoff_by_hand(shown):
    table = tables.tradeoff(shown)
    assert table.header[:5] == ("Upstream", "Params (M)", "GMACs/s", "RTF", "Size (MB)")
    assert [cell.text for cell in row(table, "distilled_wavlm")[1:5]] == ["1.44", "0.084", "0.0066", "2.9"]
    # the mean over seven tasks of accuracy or 100 − error
    mean = (100 - 47.9 + 100 - 22.8 + 90.7 + 83.0 + 94.4 + 100 - 18.8 + 70.9) / 7
    assert table.header[-1] == "Overall ↑"
    assert row(table, "distilled_wavlm")[-1] == Cell(f"{mean:.1f}", mark="second")


def drawn_of(shown, spread):
    """Joint resamples whose scores err by ``spread`` points each, independently, and do not vary over seeds."""
    rng = np.random.default_rng(0)
    return Resamples(
        {
            task: Drawn(
                shown.metric(task),
                {name: record.value for name, record in shown.fair(task).items()},
                {name: record.value + spread * rng.normal(size=500) for name, record in shown.fair(task).items()},
                {name: (record.value,) * 3 for name, record in shown.fair(task).items()},
                40,
            )
            for task in shown.tasks
        }
    )


def test_gain_kept_by_hand(shown):
    assert all(cell.text == "–" for cells in tables.gain_kept(shown).rows for cell in cells[1:])
    table = tables.gain_kept(shown, drawn_of(shown, 1.0))
    assert [cells[0].text for cells in table.rows] == [
        "distilled_wavlm over fbank", "distilled_wavlm over logmel", "distilled_wavlm over random_mini",
    ]  # fmt: skip
    over_random = table.rows[2]
    assert over_random[1].text == "82 %"  # (91.5 − 47.9) / (91.5 − 38.4)
    assert over_random[5].text == "–"  # 95.8 against 93.1, both ± 2: no gain by t(1 − 0.025 / 10) · √2 = 4.2
    assert over_random[7].text == "92 %"  # (70.9 − 62.4) / (71.6 − 62.4)


def test_no_student_no_table():
    alone = board("s", [fake("wavlm_mini", "ks", 50.0)])
    assert "gain_kept" not in [table.name for table in tables.tables(alone)]
    assert "gain_kept" in [table.name for table in tables.tables(board("s", build()))]


def test_costs_take_the_median_and_sum_the_time():
    records = [fake("logmel", task, 50.0) for task in ("ks", "er", "sid")]
    for record, factor in zip(records, (0.1, 0.9, 0.2), strict=True):
        record.cost["real_time_factor"] = factor
    cells = tables.costs(board("s", records)).rows[0]
    assert cells[3].text == "0.2000"
    assert cells[7].text == "39.0 s"  # 3 × 13 s; the extraction that they share is left out
    assert cells[8].text == "cpu × 2"


def test_unknown_costs_are_dashes():
    record = fake("logmel", "ks", 50.0)
    record.cost.update(macs_per_second=None, peak_memory_mb=None)
    cells = tables.costs(board("s", [record])).rows[0]
    assert (cells[2].text, cells[5].text) == ("–", "–")


def test_parameters_with_heads(shown):
    assert [cell.text for cell in row(tables.parameters(shown), "wavlm_mini")[:3]] == ["wavlm_mini", "5.52", "5.56"]


def test_learning_rates_mark_the_edge():
    inside = fake("logmel", "ks", 50.0, learning_rate=1e-3)
    edge = fake("fbank", "ks", 50.0, learning_rate=1e-4)
    table = tables.learning_rates(board("s", [inside, edge]))
    assert row(table, "logmel")[1].text == "1e-3"
    assert row(table, "fbank")[1].text == "1e-4*"


def test_csv_reads_back_every_digit_and_leads_to_the_record():
    record = fake("logmel", "asr", 100 / 3)
    data = pd.read_csv(io.StringIO(csv(tables.results(board("s", [record])))))
    line = data.iloc[0]
    assert (line["value"], line["ci95_low"], line["key"]) == (record.value, record.ci95[0], record.key)
    assert line["cer"] == record.secondary["cer"]["value"]


def test_markdown_marks(shown):
    text = markdown(tables.results(shown))
    assert "| **38.4** <sub>\\[36.4, 40.4\\]</sub> |" in text
    assert "<u>47.9</u>" in text
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {9}
    assert len(body) == 2 + 5


HOSTILE = r"a|b_*c*`d`<script>x</script>[l](u)&\$%#{}~^" + "\n| x |\x1b"


def test_hostile_names_in_markdown():
    shown = board("s", [fake(HOSTILE, "ks", 50.0, facts=UPSTREAMS["logmel"])])
    text = markdown(tables.results(shown))
    assert "<script" not in text
    assert "\x1b" not in text
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert len(body) == 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {3}
    assert "](u" not in text.replace("\\](u", "")


def test_escapes():
    assert escape_markdown("a_b|c") == r"a\_b\|c"
    assert escape_markdown("<b>&") == "&lt;b&gt;&amp;"
    assert escape_latex(r"a_b & 5% \x") == r"a\_b \& 5\% \textbackslash{}x"
    assert escape_latex("↓ 3e-4 [1, 2]") == r"$\downarrow$ 3e-4 {[}1, 2{]}"


def check_latex(text):
    """Braces and environments balance, nothing special is bare, every row has as many cells as columns."""
    bare = re.sub(r"(?m)^%.*$", "", text)
    assert not re.search(r"(?<!\\)[#~^]|[<>|\"]", bare)
    assert not re.search(r"(?<!\\)_", re.sub(r"\\label\{[^}]*\}", "", bare))
    depth = 0
    for char in re.sub(r"\\[{}\\]", "", bare):
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"\\begin\{([^}]*)\}", bare) == ["table*", "tabular"]
    assert re.findall(r"\\end\{([^}]*)\}", bare) == ["tabular", "table*"]
    columns = len(re.search(r"\{@\{\}(l?r*)@\{\}\}", bare)[1])
    body = bare.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) >= 2
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in rows} == {columns}
    assert bare.count("$") % 2 == len(re.findall(r"\\\$", bare)) % 2
    assert bare.isascii() or shutil.which("pdflatex")


@pytest.mark.parametrize("name", ["plain", HOSTILE])
def test_latex_is_well_formed(name, tmp_path):
    records = build() if name == "plain" else [fake(name, "ks", 50.0, facts=UPSTREAMS["logmel"])]
    made = [latex(table) for table in tables.tables(board("s_1", records))]
    assert len(made) >= 4
    for text in made:
        check_latex(text)
    if shutil.which("pdflatex"):
        head = r"\documentclass[twocolumn]{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}"
        (tmp_path / "t.tex").write_text(head + "\n".join(made) + r"\end{document}", encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_latex_marks(shown):
    text = latex(tables.results(shown))
    assert r"\textbf{38.4}" in text
    assert r"\underline{47.9}" in text
    assert r"{\scriptsize {[}36.4, 40.4{]}}" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1


def test_a_ragged_table_is_a_defect():
    with pytest.raises(ValueError, match="2 columns"):
        Table("t", "T", "c", ("a", "b"), ((Cell("1"),),), pd.DataFrame())
