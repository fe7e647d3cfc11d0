"""Every case of every compressed family: its card can be drafted from the checkpoint, and the check passes."""

from __future__ import annotations

import pytest
import yaml
from student_cases import Case, card_file
from test_equality import CASES

from harness import drafting, registry
from harness.conformance import Subject
from harness.conformance.points import BEFORE, POINTS
from upstreams.adapters import formats

KINDS = ("huggingface", "mini", "gendistiller", "exported", "checkpoint")
QUICK = ("batch", "padding", "shortest", "too short", "MAC count")
"""What differs within a family; the other points are tried on its first case."""
FIRST = {case.family: case.name for case in reversed(CASES)}
every = pytest.mark.parametrize("case", CASES, ids=[f"{case.family}-{case.name}" for case in CASES])


@every
def test_a_card_can_be_drafted(case: Case, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "formats", lambda: {kind: getattr(formats, kind) for kind in KINDS})
    written = yaml.safe_load(card_file(case, tmp_path).read_text())
    file = drafting.draft(tmp_path / written["weights"], "drafted", tmp_path / "cards")
    card = registry.card(str(file))
    assert len(file.read_text().splitlines()) <= 20
    assert card.adapter == written["adapter"]
    assert card.family == case.family
    assert {"licence", "source"} <= set(drafting.left_open(card))
    if written.get("options") in (None, {}, card.options):
        upstream, known = registry.load_upstream(str(file)), registry.load_upstream(str(tmp_path / "case.yaml"))
        assert (upstream.num_states, upstream.width) == (known.num_states, known.width)
        assert written.get("depth") in (None, card.depth)


@every
def test_the_check_passes(case: Case, tmp_path):
    name = str(card_file(case, tmp_path))
    subject = Subject(registry.card(name), lambda: registry.load_upstream(name))
    first = FIRST[case.family] == case.name
    tried = [
        p for p in (*BEFORE, *POINTS) if p.name in QUICK or (first and p.name != "heads")
    ]  # those know the width alone
    failed = [result for result in (point(subject) for point in tried) if not result.passed]
    assert not failed, "\n".join(f"{result.name}: {result.figure}" for result in failed)
