"""Models that a card takes from the local Hugging Face cache: found where the cache's own client finds them."""

import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from tiny_models import hf_card, hf_model, save_hf

from harness import listing, registry
from harness.cards import available, check_weights, missing, weights_of
from harness.identity import digest_weights
from harness.interface import SlimbenchError
from upstreams.adapters.huggingface import HuggingFace

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hugging Face cache with one tiny model; the network is out of reach."""
    cache = tmp_path / "cache"
    save_hf(hf_model("hubert"), cache / "models--someone--tiny" / "snapshots" / REVISION)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(socket, "socket", None)
    return cache


def test_a_hub_name_is_found_in_the_local_cache(tmp_path, hub):
    card = hf_card(tmp_path, weights=None, options={"hub": "someone/tiny", "revision": REVISION})
    whole = hub / "models--someone--tiny" / "snapshots" / REVISION
    upstream = HuggingFace(card)
    assert upstream.fingerprint == HuggingFace(hf_card(tmp_path, weights=str(whole))).fingerprint
    check_weights(replace(card, sha256=digest_weights(whole)))
    with pytest.raises(SlimbenchError, match=r"has SHA-256 .* but its card .* says 0000"):
        check_weights(replace(card, sha256="0" * 64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"hub": "someone/other", "revision": REVISION},
            rf"fetch them with 'hf download someone/other --revision {REVISION}'",
        ),
        (
            {"hub": "someone/tiny", "revision": "f" * 40},
            r"weights of tiny are not here: the Hugging Face cache .* does not have",
        ),
        ({"hub": "someone/tiny", "revision": "main"}, r"revision is 'main'; write the commit of someone/tiny, 40"),
        ({"hub": "someone/tiny"}, "option revision is ''"),
        ({"hub": "../../etc", "revision": REVISION}, "option hub is '../../etc'; write owner/name"),
    ],
)
def test_a_hub_name_that_is_not_there(tmp_path, hub, fields, message):
    with pytest.raises(SlimbenchError, match=message):
        HuggingFace(hf_card(tmp_path, weights=None, options=fields))


def by_the_client(cache, options):
    """The folder that huggingface_hub itself finds without a network; ``None`` where it finds none."""
    try:
        return Path(
            snapshot_download(options["hub"], revision=options["revision"], cache_dir=cache, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None


@pytest.mark.parametrize(
    ("name", "revision", "here"),
    [("someone/tiny", REVISION, True), ("someone/tiny", "f" * 40, False), ("someone/other", REVISION, False)],
)
def test_weights_are_here_where_the_client_finds_them(tmp_path, hub, name, revision, here):
    options = {"hub": name, "revision": revision}
    card = hf_card(tmp_path, weights=None, options=options)
    assert (by_the_client(hub, options) is not None) == here == available(card)
    assert (missing(card) is None) == here
    if here:
        assert weights_of(card) == by_the_client(hub, options)
        return
    with pytest.raises(
        SlimbenchError, match=rf"weights of tiny are not here: .*hf download {name} --revision {revision}"
    ):
        registry.load_upstream(str(card.file))


def test_a_snapshot_without_weights_is_not_enough(tmp_path, hub):
    card = hf_card(tmp_path, weights=None, options={"hub": "someone/tiny", "revision": REVISION})
    (hub / "models--someone--tiny" / "snapshots" / REVISION / "model.safetensors").unlink()
    assert not available(card)


def test_the_list_says_which_weights_are_missing_and_where_to_get_them(tmp_path, hub, monkeypatch, capsys):
    for name, model in (("got", "someone/tiny"), ("lacked", "someone/other")):
        hf_card(tmp_path, name, weights=None, options={"hub": model, "revision": REVISION})
    monkeypatch.setenv("SLIMBENCH_CARDS", str(tmp_path))
    rows = {row["name"]: row for row in listing.upstreams(available=False)}
    assert (rows["got"]["available"], rows["got"]["missing"]) == (True, None)
    assert rows["lacked"]["available"] is False
    assert f"hf download someone/other --revision {REVISION}" in rows["lacked"]["missing"]
    assert {"got", "lacked"} & {row["name"] for row in listing.upstreams(available=True)} == {"got"}
    shown = listing.text(list(rows.values()))
    assert re.search(r"^lacked .* no$", shown, re.MULTILINE)
    assert re.search(r"^got .* yes$", shown, re.MULTILINE)
    assert f"The weights of lacked are not here: {rows['lacked']['missing']}." in shown.splitlines()
    packaged = sum(row["packaged"] and not row["available"] for row in rows.values())
    assert f"The weights of {packaged} packaged upstreams are not here" in shown


@pytest.mark.parametrize(
    "options", [{"hub": 7, "revision": REVISION}, {"hub": "a b", "revision": REVISION}, {"hub": "x"}]
)
def test_options_of_that_name_that_mean_something_else_are_left_to_the_adapter(tmp_path, options):
    assert available(hf_card(tmp_path, weights=None, options=options))


def test_a_hub_name_beside_weights_is_refused(tmp_path):
    with pytest.raises(SlimbenchError, match="sets both 'weights' and option hub"):
        HuggingFace(hf_card(tmp_path, options={"hub": "someone/tiny", "revision": REVISION}))
