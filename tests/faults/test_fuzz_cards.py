"""Whatever a card file holds, and whatever name is asked for: a card, or one SlimbenchError; never another error."""

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.cards import Card, available, check_weights, read_card, variants_of
from harness.interface import SlimbenchError
from harness.registry import card

SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
GOOD = {
    "name": "x",
    "title": "X",
    "adapter": "harness.cards:nothing",
    "licence": "none",
    "source": "nowhere",
    "exposes": "nothing",
}
FIELDS = [*GOOD, "weights", "sha256", "family", "teacher", "precision", "depth", "width", "options", "variants"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("cards") / "x.yaml"


def use(file, content):
    """All that is done with a card before its adapter is called; ``None`` where it is refused with its name."""
    file.write_bytes(content)
    try:
        found = read_card(file)
        for one in [found, *variants_of(found)]:
            assert isinstance(one, Card)
            assert isinstance(card(f"{file}@{one.name.rpartition('@')[2]}" if "@" in one.name else str(file)), Card)
            str(one).encode(errors="strict")
            if available(one):
                check_weights(one)
            one.settings({"seed": 0, "random": False, "text": "", "list": [], "any": None})
    except SlimbenchError as error:
        assert str(file.parent) in str(error)  # noqa: PT017
        return None
    return found


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=12)
    | st.sampled_from(["int8", "~x", "${HOME}", "$", "../x", "/", "a\0b", "x" * 300, "0" * 64, "@", "a@b", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=8,
)
CARDS = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=5)
VARIANTS = st.dictionaries(
    st.text("ab.-_@/ ", min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3) | VALUES,
    max_size=3,
)


@settings(SETTINGS, max_examples=80)
@given(changes=CARDS, variants=VARIANTS)
def test_fields_of_any_kind(file, changes, variants):
    values = {**GOOD, **changes, **({"variants": variants} if variants else {})}
    use(file, yaml.safe_dump(values, allow_unicode=True).encode(errors="surrogatepass"))


@settings(SETTINGS, max_examples=120)
@given(content=st.binary(max_size=80) | st.text("ab:-[]{}&*!|>?%@,#'\"\\ \n\t0123<=~x.", max_size=80).map(str.encode))
@example(content=b"[" * 5000)
@example(content=b"a: " + b"{a: " * 3000)
@example(content=b"when: 2024-99-99")
@example(content=b"n: 0b")
@example(content=b"n: 1:_")
@example(content=b"!!python/object/apply:os.system ['touch x']")
@example(content=b"a: !!timestamp x")
@example(content=b"a: !!int x")
@example(content=b"a: !!float .")
@example(content=b"a: !!bool maybe")
@example(content=b"? [1]\n: 2")
@example(content=b"title: 0x" + b"f" * 5000)
@example(content=b'title: "\\ud800"')
@example(content=b"a: &a [*a]")
@example(content=b"\xff\xfe")
def test_text_of_any_kind(file, content):
    assert use(file, content) is None


@pytest.mark.parametrize("field", ["title", "depth", "options", "variants", "unknown"])
@pytest.mark.parametrize("merge", [False, True])
def test_references_that_multiply_are_refused(field, merge, file):
    lines = ["x0: &x0 {k: v}" if merge else "x0: &x0 [v]"]
    link = "{<<: [*x%d, *x%d]}" if merge else "[*x%d, *x%d]"
    lines += [f"x{i + 1}: &x{i + 1} " + link % (i, i) for i in range(60)]
    file.write_text("\n".join([*lines, f"{field}: *x60"]))
    said = "'<<' stands there" if merge else "a value is referred to"
    with pytest.raises(SlimbenchError, match=rf"x\.yaml is not plain YAML \(line 2\): {said}"):
        read_card(file)


def test_a_field_may_not_occur_twice(file):
    good = yaml.safe_dump(GOOD)
    assert use(file, good.encode()) is not None
    for content in (good + "name: y\n", good + "options: {a: 1, a: 2}\n"):
        file.write_text(content)
        with pytest.raises(SlimbenchError, match=r"not plain YAML \(line \d\): the field '(name|a)' occurs twice"):
            read_card(file)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("~nobody_at_all/x", "write the whole path"),
        ("x" * 300, "correct the path"),
        ("a/" * 3000 + "b", "correct the path"),
    ],
)
def test_paths_that_cannot_be(weights, reason, file):
    file.write_text(yaml.safe_dump({**GOOD, "weights": weights}, width=100_000))
    with pytest.raises(SlimbenchError, match=reason):
        check_weights(read_card(file))


@settings(SETTINGS, max_examples=12)
@given(name=st.text(max_size=12) | st.sampled_from(["@", "a@", "@b", "", "x.yaml@y", "../x.yaml", "/", "/dev/null"]))
@example(name="\0.yaml")
@example(name="\ud800.yaml")
@example(name="a" * 300 + ".yaml")
@example(name=".yaml")
def test_names_of_any_kind(name):
    with pytest.raises(SlimbenchError):
        card(name)


def test_nothing_of_a_card_runs(file, tmp_path):
    marker = tmp_path / "it-ran"
    for tag in (
        "python/object/apply:os.mkdir",
        "python/object/new:os.mkdir",
        "python/name:os.mkdir",
        "python/module:os",
    ):
        assert use(file, yaml.safe_dump(GOOD).encode() + f"options: !!{tag} ['{marker}']\n".encode()) is None
    assert not marker.exists()
