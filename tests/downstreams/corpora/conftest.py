"""The miniature trees, built once: of tones, and of real speech where there is some."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trees

from harness.interface import SlimbenchError


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """Folder of the trees of tones, and the counts that must come out. Read only."""
    folder = tmp_path_factory.mktemp("tones")
    return folder, trees.build(folder, None)


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """The same of real speech."""
    speech = os.environ.get("REAL_SPEECH")
    if not speech:
        pytest.skip("REAL_SPEECH names no folder of real recordings")
    folder = tmp_path_factory.mktemp("spoken")
    return folder, trees.build(folder, Path(speech).absolute())


@pytest.fixture
def copied(tones, tmp_path):
    """Copies a corpus' folder (or several) to where it may be damaged; returns the data folder."""

    def copy(*names):
        for name in names:
            shutil.copytree(tones[0] / name, tmp_path / "data" / name)
        return tmp_path / "data"

    return copy


@pytest.fixture
def problems():
    """All problems of a corpus, of which the last compares the counts; with at least one there are no rows."""

    def found(corpus, data, expected):
        finding = corpus.check(data, expected)
        assert finding.status == "incomplete"
        with pytest.raises(SlimbenchError, match="is not complete"):
            corpus.rows(data, corpus.tasks[0], expected)
        return list(finding.problems)

    return found
