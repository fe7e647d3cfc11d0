"""docs/submitting.md, run as it stands, with a model of the same kind that is small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from harness import registry
from harness.conformance.points import BEFORE, POINTS
from harness.drafting import left_open
from harness.identity import digest_weights

PAGE = (Path(__file__).parents[2] / "docs" / "submitting.md").read_text(encoding="utf-8")
SMALL = (
    "hidden_size=32, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7, num_conv_pos_embedding_groups=2"
)


def block(language: str, start: str = "") -> str:
    """The first block of code in that language that contains ``start``."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if start in text]
    assert found, (language, start)
    return found[0]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The page's model, small, in an empty folder."""
    program = block("python", "save_pretrained")
    small = program.replace("HubertConfig(num_hidden_layers=2)", f"HubertConfig(num_hidden_layers=2, {SMALL})")
    assert small != program
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "task_names", lambda: ["ks"])
    exec(compile(small, "docs/submitting.md", "exec"), {})  # noqa: S102 (our own page)


def test_the_page_is_true(model, call):
    command = re.search(r"\$ slimbench (new-upstream .*)", PAGE)[1].split()
    status, shown, _ = call(*command)
    assert status == 0

    printed = block("console", "new-upstream").partition(" ".join(command) + "\n")[2]
    on_page, _, sentence = printed.partition("\n\n")
    drafted = yaml.safe_load(Path("cards/my_student.yaml").read_text())
    assert drafted["sha256"] == digest_weights(Path("models/my_student"))
    assert drafted == {**yaml.safe_load(on_page), "sha256": drafted["sha256"], "width": 32}
    assert shown.endswith(sentence)


def test_check_refuses_the_draft_and_takes_what_is_filled_in(model, call):
    assert call(*re.search(r"\$ slimbench (new-upstream .*)", PAGE)[1].split())[0] == 0
    check = re.search(r"\$ slimbench (check .*)", PAGE)[1].split()
    card = Path("cards/my_student.yaml")

    status, shown, _ = call(*check)
    assert status == 1
    assert block("text", "card filled in failed").strip() in shown

    text = card.read_text()
    for old, new in re.findall(r"s\|(.*?)\|(.*?)\|", block("bash", "sed -i")):
        text = re.sub(old, new, text, flags=re.MULTILINE)
    card.write_text(text)
    assert left_open(registry.card(str(card))) == []
    status, shown, _ = call(*check)
    assert status == 0, shown
    points = [point.name for point in (*BEFORE, *POINTS)]
    for table in (shown, block("console", "slimbench check")):
        assert [line[8:].split("  ")[0] for line in table.splitlines() if line.startswith("passed  ")] == points
    assert f"{len(points)} of {len(points)} passed" in PAGE


def test_every_format_is_registered():
    assert {"huggingface", "mini", "gendistiller", "exported", "checkpoint"} <= registry.formats().keys()
