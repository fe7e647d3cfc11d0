"""Tables of published rows against the rows themselves."""

import pytest

from leaderboards import scores
from leaderboards.published import PUBLISHED, published
from leaderboards.published_tables import gain_kept, published_tables, results
from leaderboards.render import latex, markdown


@pytest.fixture(scope="module")
def rows():
    return published().rows


def line_of(table, system):
    return next(line for line in table.rows if line[0].text == f"{system}{PUBLISHED.sign}")


def test_every_scored_row_is_there_and_marked(rows):
    table = results(rows)
    assert [line[0].text for line in table.rows] == [f"{row.system}¶" for row in rows if row.metrics()]
    silent = ", ".join(row.system for row in rows if not row.metrics())
    assert table.notes[-1] == f"No task score could be found of {silent}."
    assert len(table.data) == sum(len(row.values) for row in rows)
    assert set(table.data["origin"]) == {"published"}
    for word in (PUBLISHED.footnote, "≈ Read off a plot, see the row for its precision."):
        assert word in table.notes


def test_cells_are_values_with_their_marks(rows):
    table = results(rows)
    by_name = {row.system: row for row in rows}
    column = table.header.index("SID Acc ↑")
    assert line_of(table, "HuBERT Base")[column].text == "81.42"
    assert line_of(table, "GradStack")[column].text == "70.89‡"
    assert line_of(table, "GradStack")[1].text == "26.87‡"
    qbe = line_of(table, "HuBERT Base")[table.header.index("QBE MTWV ↑")]
    assert float(qbe.text) == pytest.approx(100 * by_name["HuBERT Base"].value("qbe.mtwv"))
    whole = scores.score_published(scores.weighting("superb_s"), rows)
    assert line_of(table, "DistilHuBERT")[-1].text == whole["DistilHuBERT"].text
    assert line_of(table, "GradStack")[-1].text == "–"


def test_the_best_is_that_of_the_current_editions(rows):
    table = results(rows)
    current = [row for row in rows if row.metrics() and row.ranked]
    for title, name, choose in (("ASR WER ↓", "asr.wer", min), ("QBE MTWV ↑", "qbe.mtwv", max)):
        best = choose((row for row in current if name in row.values), key=lambda row: row.value(name))
        place = table.header.index(title)
        assert [line[0].text for line in table.rows if line[place].mark == "best"] == [f"{best.system}¶"]


def test_shares_of_the_gain_by_hand(rows):
    table = gain_kept(rows)
    line = line_of(table, "DistilHuBERT")
    place = table.header.index("ASR")
    assert line[place].text == f"{100 * (13.37 - 23.18) / (6.42 - 23.18):.0f} %"
    assert all(not cell.small for row in table.rows for cell in row)
    assert not any(row[0].text.startswith("HuBERT Base") for row in table.rows)


def test_only_chosen_rows_make_a_table(rows):
    some = [row for row in rows if row.system in ("FBANK", "HuBERT Base")]
    made = published_tables(some)
    assert [table.name for table in made] == ["results"]
    assert len(made[0].rows) == 2


def test_wide_tables_are_scaled_to_the_text_and_labels_differ(rows):
    made = published_tables(rows)
    labels = {latex(table, scope).split(r"\label{")[1].split("}")[0] for table in made for scope in ("one", "two_b")}
    assert len(labels) == 2 * len(made)
    assert "tab:two-b-results" in labels
    for table in made:
        text = latex(table)
        wide = len(table.header) > 11
        assert (r"\resizebox{\textwidth}{!}{%" in text) is wide
        assert (r"\end{tabular}}" in text) is wide
        assert ("graphicx" in text) is wide
        assert r"\scriptsize" not in text
        assert r"\P{}" in text
        assert "\\begin{tabular}" in text
        assert markdown(table).count("\n| ") == len(table.rows) + 1
