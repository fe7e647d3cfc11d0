"""Cards, plug-ins and names: what is found, and what a user is told when it is not."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness import registry
from harness.cards import read_card
from harness.identity import digest_bytes, digest_weights
from harness.interface import SlimbenchError

FIELDS = {"title": "T", "adapter": "some_plugin:Fake", "licence": "MIT", "source": "a test", "exposes": "nothing"}
PLUGIN = """
from pathlib import Path
CARDS = Path(__file__).parent / "cards"
SUITES = Path(__file__).parent / "suites"
CALLS = []
class Fake:
    def __init__(self, card, device):
        self.name, self.width, self.options = card.name, 7, card.settings({"depth": 3})
TASK = object()
def add_verb(subparsers):
    CALLS.append(subparsers)
"""
ENTRY_POINTS = """
[slimbench.upstreams]
some = some_plugin:CARDS
[slimbench.suites]
some = some_plugin:SUITES
[slimbench.tasks]
humming = some_plugin:TASK
broken = some_plugin_that_is_gone:TASK
[slimbench.verbs]
sing = some_plugin:add_verb
"""


def write_card(folder: Path, name: str, /, **fields) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"name": name, **FIELDS, **fields}, sort_keys=False))
    return file


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package that registers a card folder, a suite, tasks and a verb."""
    site = tmp_path / "site"
    write_card(site / "cards", "hummer", width=7)
    (site / "suites").mkdir()
    (site / "suites" / "choir.yaml").write_text("name: choir\n")
    (site / "some_plugin.py").write_text(PLUGIN)
    info = site / "some_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("some_plugin", None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's own cards."""
    monkeypatch.setenv("SLIMBENCH_CARDS", str(tmp_path / "cards"))
    (tmp_path / "cards").mkdir()
    return tmp_path / "cards"


def test_listing_does_not_import_torch():
    code = (
        "import sys; import harness.registry as r;"
        "assert r.cards() and r.task_names() and r.verbs();"
        "r.suite_files(); [r.available(c) for c in r.cards().values()];"
        "print(sorted(m for m in sys.modules if m in ('torch', 'transformers', 'torchaudio', 'pandas', 'matplotlib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_built_in_cards_are_there_and_named_as_their_files():
    found = registry.cards()
    wanted = {"fbank", "logmel", "random_mini", "wavlm_mini", "distilled_wavlm", "hubert_base", "wavlm_base_plus"}
    assert wanted <= found.keys()
    for name in wanted:
        assert found[name].file.stem == name
        assert len(found[name].file.read_text().splitlines()) <= 20
    assert found["distilled_wavlm"].teacher == "wavlm_mini"
    assert found["logmel"].options == {"cmvn": False}
    assert registry.available(found["fbank"])


def test_a_plugin_is_found_like_a_built_in_part(plugin):
    assert registry.card("hummer").packaged
    assert registry.load_upstream("hummer").width == 7
    assert registry.suite_files()["choir"] == plugin / "suites" / "choir.yaml"
    assert "humming" in registry.task_names()
    assert registry.task("humming") is sys.modules["some_plugin"].TASK
    registry.verbs()["sing"]("subparsers")
    assert sys.modules["some_plugin"].CALLS == ["subparsers"]


def test_a_broken_plugin_is_one_sentence(plugin):
    with pytest.raises(SlimbenchError, match=r"Cannot load some_plugin_that_is_gone:TASK: No module named"):
        registry.task("broken")


def test_did_you_mean(plugin):
    with pytest.raises(
        SlimbenchError, match=r"No upstream is called 'destiled_wavlm', did you mean 'distilled_wavlm'\?"
    ):
        registry.card("destiled_wavlm")
    with pytest.raises(SlimbenchError, match=r"No task is called 'huming', did you mean 'humming'\?.*known: .*ks"):
        registry.task("huming")
    with pytest.raises(SlimbenchError, match=r"No suite is called 'chor', did you mean 'choir'\?; known: choir, embed"):
        raise registry.unknown("suite", "chor", ["embed", "choir"])
    with pytest.raises(SlimbenchError, match=r"No upstream is called 'xyzzy'; known: "):
        registry.card("xyzzy")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depht": 12}, r"own\.yaml: unknown field 'depht', did you mean 'depth'\?"),
        ({"depth": "twelve"}, r"own\.yaml: field 'depth' must be a whole number, not 'twelve'"),
        ({"depth": True}, r"own\.yaml: field 'depth' must be a whole number, not True"),
        ({"options": "cmvn"}, r"own\.yaml: field 'options' must be a mapping"),
        ({"licence": None}, r"own\.yaml: field 'licence' is missing"),
        ({"sha256": "abc"}, r"own\.yaml: field 'sha256' must be 64 hexadecimal digits"),
        ({"name": "a/b"}, r"own\.yaml: the name 'a/b' must be of letters"),
    ],
)
def test_a_wrong_card_names_file_and_field(folder, fields, message):
    write_card(folder, "own", **fields)
    with pytest.raises(SlimbenchError, match=message):
        registry.cards()


def test_files_that_are_no_cards(folder):
    (folder / "own.yaml").write_text("name: [unclosed")
    with pytest.raises(SlimbenchError, match=r"own\.yaml is not plain YAML \(line 1\): .*but got"):
        registry.cards()
    (folder / "own.yaml").write_text("- a list")
    with pytest.raises(SlimbenchError, match="a card is a mapping"):
        registry.cards()
    with pytest.raises(SlimbenchError, match=r"Cannot read the card .*none\.yaml"):
        registry.card(str(folder / "none.yaml"))


def test_card_folders(folder, monkeypatch):
    write_card(folder, "fbank")
    with pytest.raises(SlimbenchError, match="have one name, 'fbank'"):
        registry.cards()
    monkeypatch.setenv("SLIMBENCH_CARDS", str(folder / "gone"))
    with pytest.raises(SlimbenchError, match="not a folder"):
        registry.cards()


def test_a_path_is_a_card(plugin, tmp_path):
    file = write_card(tmp_path / "x", "mine", options={"depth": 5})
    assert registry.load_upstream(str(file)).options == {"depth": 5}
    file = write_card(tmp_path / "x", "mine", options={"deph": 5})
    with pytest.raises(SlimbenchError, match=r"mine\.yaml: unknown option 'deph', did you mean 'depth'\?"):
        registry.load_upstream(str(file))


DEFAULTS = {"cmvn": True, "depth": 3, "scale": 0.5, "kind": "a", "sizes": [1], "free": None}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("cmvn", "false", r"option cmvn is 'false'; write true or false, without quotes\."),
        ("cmvn", 0, r"option cmvn is 0; write true or false, without quotes\."),
        ("cmvn", None, r"option cmvn is None; write true or false, without quotes\."),
        ("depth", True, r"option depth is True; write a whole number, without quotes\."),
        ("depth", 3.0, r"option depth is 3\.0; write a whole number, without quotes\."),
        ("scale", "0.1", r"option scale is '0\.1'; write a number, without quotes\."),
        ("scale", False, r"option scale is False; write a number, without quotes\."),
        ("kind", 7, r"option kind is 7; write text\."),
        ("sizes", 7, r"option sizes is 7; write a list\."),
    ],
)
def test_an_option_has_the_type_of_its_default(tmp_path, option, value, said):
    card = read_card(write_card(tmp_path, "mine", options={option: value}))
    with pytest.raises(SlimbenchError, match=rf"mine\.yaml: {said}"):
        card.settings(DEFAULTS)


def test_options_of_the_right_type_are_taken_as_they_are(tmp_path):
    given = {"cmvn": False, "depth": 5, "scale": 2, "kind": "b", "sizes": [], "free": "anything"}
    assert read_card(write_card(tmp_path, "mine", options=given)).settings(DEFAULTS) == given
    assert read_card(write_card(tmp_path, "mine")).settings(DEFAULTS) == DEFAULTS


def test_weights_are_relative_to_the_card_or_to_a_variable(folder, monkeypatch, tmp_path):
    write_card(folder, "own", weights="../w/a.bin")
    write_card(folder, "other", weights="${SLIMBENCH_TEST_WEIGHTS}/b.bin")
    monkeypatch.delenv("SLIMBENCH_TEST_WEIGHTS", raising=False)
    own, other = registry.card("own"), registry.card("other")
    assert own.weights == tmp_path / "w" / "a.bin"
    assert not registry.available(own)
    assert not registry.available(other)
    with pytest.raises(
        SlimbenchError, match=r"weights of other .* put them at \$\{SLIMBENCH_TEST_WEIGHTS\}/b.bin and set"
    ):
        registry.load_upstream("other")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a.bin").write_bytes(b"a")
    (tmp_path / "w" / "b.bin").write_bytes(b"b")
    monkeypatch.setenv("SLIMBENCH_TEST_WEIGHTS", str(tmp_path / "w"))
    assert registry.available(own)
    assert registry.available(registry.card("other"))


def test_changed_weights_are_refused_and_pinning_mends_it(plugin, folder, tmp_path):
    file = write_card(folder, "own", weights="../a.bin", sha256="0" * 64)
    file.write_text(file.read_text() + "# a comment that stays\n")
    (tmp_path / "a.bin").write_bytes(b"abc")
    with pytest.raises(SlimbenchError, match=r"a\.bin has SHA-256 ba7816bf.*own\.yaml says 0000"):
        registry.load_upstream("own")
    before = file.read_text()
    digest = registry.pin(file)
    assert digest == digest_bytes(b"abc") == registry.card("own").sha256
    assert file.read_text() == before.replace("'" + "0" * 64 + "'", digest)
    assert registry.load_upstream("own").name == "own"
    (tmp_path / "a.bin").write_bytes(b"abd")
    with pytest.raises(SlimbenchError, match="restore the file"):
        registry.load_upstream("own")


def test_pinning_needs_weights(folder):
    with pytest.raises(SlimbenchError, match="nothing to pin"):
        registry.pin(write_card(folder, "own"))
    with pytest.raises(SlimbenchError, match="Cannot read"):
        registry.pin(write_card(folder, "own", weights="gone.bin"))


def test_weights_beside_a_packaged_card_must_be_pinned(plugin, monkeypatch):
    write_card(plugin / "cards", "singer", weights="../weights/a.bin")
    (plugin / "weights").mkdir()
    (plugin / "weights" / "a.bin").write_bytes(b"abc")
    with pytest.raises(SlimbenchError, match=r"singer\.yaml: the weights beside this card are not pinned"):
        registry.load_upstream("singer")
    registry.pin(plugin / "cards" / "singer.yaml")
    assert registry.load_upstream("singer").name == "singer"


def test_every_built_in_card_with_weights_here_is_pinned():
    for item in registry.cards().values():
        if item.weights is not None and item.packaged and registry.available(item):
            assert item.sha256 == digest_weights(item.weights), item.name


def test_the_width_on_the_card_must_be_true(plugin, folder):
    write_card(folder, "own", width=8)
    with pytest.raises(SlimbenchError, match=r"own\.yaml says width 8, but its states are 7 wide"):
        registry.load_upstream("own")


@pytest.mark.parametrize("target", ["os.path", "os:", ":join", "os.path:nothing", "no_such_module:x"])
def test_targets_that_do_not_resolve(target):
    with pytest.raises(SlimbenchError, match="correct"):
        registry.resolve(target)


def test_resolve_follows_dots():
    assert registry.resolve("pathlib:Path.cwd") == Path.cwd
