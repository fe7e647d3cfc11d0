"""The tables in docs/upstreams.md are those of the cases and sizes as they are now."""

from __future__ import annotations

from parity_table import BEGIN, DOCUMENT, END, parameters
from test_equality import BOUND, CASES, SIZES


def rows() -> list[list[str]]:
    text = DOCUMENT.read_text(encoding="utf-8")
    inside = text.partition(BEGIN)[2].partition(END)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in inside.splitlines() if line[:1] == "|"]


def test_every_case_is_in_the_table_and_within_the_bound() -> None:
    listed = {(row[0], row[1]): float(row[3]) for row in rows() if len(row) == 5 and row[2].isdigit()}
    assert listed.keys() == {(case.family, case.name) for case in CASES}
    assert max(listed.values()) <= BOUND


def test_every_size_is_in_the_table_as_it_is() -> None:
    listed = {(row[0], row[1]): row[2:4] for row in rows() if len(row) == 7 and row[0] not in ("family", "---")}
    assert listed.keys() == {(size.family, size.name) for size in SIZES}
    for size in SIZES:
        printed = "" if size.params is None else f"{size.params:.{size.digits}f}"
        assert listed[size.family, size.name] == [parameters(size), printed]
