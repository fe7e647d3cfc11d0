import gzip
import importlib
import itertools
import math
import random
import sys
from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from downstreams import lm
from downstreams.asr import ASR, SYMBOLS
from harness.interface import Labels, SlimbenchError

WORDS = ("A", "AB", "B", "BA", "AA")
UNIGRAMS = {"<s>": (-99.0, -0.4), "</s>": (-0.9, 0.0), "<unk>": (-2.5, 0.0)} | {
    word: (-0.6 - 0.17 * rank, -0.1 - 0.13 * rank) for rank, word in enumerate(WORDS)
}
"""log10 probability and back-off weight."""
BIGRAMS = {("<s>", "AB"): -0.2, ("AB", "A"): -0.35, ("A", "B"): -0.15, ("B", "B"): -1.9, ("BA", "</s>"): -0.05}
IMPOSSIBLE = -60.0


def arpa(unigrams, bigrams):
    lines = ["\\data\\", f"ngram 1={len(unigrams)}", f"ngram 2={len(bigrams)}", "", "\\1-grams:"]
    lines += [f"{score}\t{word}\t{back_off}" for word, (score, back_off) in unigrams.items()]
    lines += ["", "\\2-grams:"] + [f"{score}\t{' '.join(pair)}" for pair, score in bigrams.items()]
    return "\n".join([*lines, "", "\\end\\", ""])


def spelled(words):
    return "".join(f"{word}\t{' '.join(word)} |\n" for word in words)


def log10(words):
    """The bigram model by hand: back off where a pair is not listed."""
    total = 0.0
    for before, word in itertools.pairwise(["<s>", *words, "</s>"]):
        total += BIGRAMS.get((before, word), UNIGRAMS[before][1] + UNIGRAMS[word][0])
    return total


def logits_of(symbols, rows):
    """(T, 32) logits that are ``rows`` at ``symbols`` and next to impossible elsewhere."""
    logits = np.full((len(rows), len(SYMBOLS)), IMPOSSIBLE, dtype=np.float32)
    logits[:, [SYMBOLS.index(symbol) for symbol in symbols]] = rows
    return logits


def sentence_of(path):
    """Words of a path of symbols: runs merged, blanks dropped; nothing where it breaks off within a word."""
    text = "".join(symbol for symbol, _ in itertools.groupby(path) if symbol != "<s>")
    return None if text and not text.endswith("|") else text.replace("|", " ").split()


def best_by_force(logits, weights, symbols=("<s>", "|", "A", "B")):
    """The best sentence and the lead over the next one, from all paths."""
    places = [SYMBOLS.index(symbol) for symbol in symbols]
    scores = torch.from_numpy(logits).double().log_softmax(-1)[:, places].tolist()
    best = {}
    for path in itertools.product(range(len(symbols)), repeat=len(logits)):
        words = sentence_of([symbols[i] for i in path])
        if words is None or not set(words) <= set(WORDS):
            continue
        heard = sum(row[i] for row, i in zip(scores, path, strict=True))
        total = heard + weights.lm * log10(words) + weights.word * len(words)
        total += weights.silence * sum(symbols[i] == "|" for i in path)
        sentence = " ".join(words)
        best[sentence] = max(total, best.get(sentence, -math.inf))
    (first, value), (_, second) = sorted(best.items(), key=lambda pair: -pair[1])[:2]
    return first, value - second


@pytest.fixture
def flashlight():
    return pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="the extra lm is not installed")


@pytest.fixture
def files(tmp_path):
    model, lexicon = tmp_path / "tiny.arpa", tmp_path / "tiny.lst"
    model.write_text(arpa(UNIGRAMS, BIGRAMS))
    lexicon.write_text(spelled(WORDS))
    return model, lexicon


@pytest.mark.parametrize("weights", [lm.SUPERB, lm.Weights(lm=0.7, word=0.4, silence=-3.0)])
def test_wide_search_finds_the_best_of_all_paths(flashlight, files, weights):
    wide = lm.Weights(beam=5000, beam_threshold=1e9, lm=weights.lm, word=weights.word, silence=weights.silence)
    decoder = lm.LanguageModel(*files, wide)
    draw = np.random.default_rng(3)
    found = []
    for frames in (2, 4, 5, 6, 6, 6, 7, 7):
        logits = logits_of(["<s>", "|", "A", "B"], draw.normal(0, 4, (frames, 4)))
        expected, lead = best_by_force(logits, weights)
        assert lead > 1e-4
        assert decoder.decode(logits) == expected
        found.append(expected)
    assert len(set(found)) >= 5
    assert any(len(sentence.split()) > 1 for sentence in found)


def test_double_letter_needs_a_blank(flashlight, files):
    free = lm.Weights(beam=5000, beam_threshold=1e9, lm=0.0, word=0.0)
    decoder = lm.LanguageModel(*files, free)
    sure = 40 * np.eye(3)
    assert decoder.decode(logits_of(["<s>", "|", "A"], sure[[2, 2, 1, 0]])) == "A"
    assert decoder.decode(logits_of(["<s>", "|", "A"], sure[[2, 0, 2, 1]])) == "AA"


def test_superbs_weights():
    weights = lm.SUPERB
    assert (weights.beam, weights.beam_threshold) == (5, 25)
    assert (weights.lm, weights.word, weights.silence) == (2, -1, 0)


def heard(text, doubtful=(), frames=2):
    """Logits of a recogniser that says ``text``; at ``doubtful`` places the given letter is nearly as likely."""
    rows = []
    for place, letter in enumerate(text):
        row = np.full(len(SYMBOLS), -9.0, dtype=np.float32)
        row[SYMBOLS.index(letter)] = 3.0
        if place in dict(doubtful):
            row[SYMBOLS.index(dict(doubtful)[place])] = 2.4
        blank = np.full_like(row, -9.0)
        blank[0] = 3.0
        rows += [row] * frames + [blank]
    return np.stack(rows)


@pytest.fixture
def cats(tmp_path):
    unigrams = {"<s>": (-99, -0.3), "</s>": (-1, 0), "<unk>": (-3, 0)}
    unigrams |= {"THE": (-1, -0.3), "CAT": (-1.4, -0.3), "KAT": (-1.4, -0.3), "SAT": (-1.4, -0.3)}
    bigrams = {("<s>", "THE"): -0.2, ("THE", "CAT"): -0.3, ("CAT", "SAT"): -0.3, ("SAT", "</s>"): -0.3}
    model, lexicon = tmp_path / "cats.arpa", tmp_path / "cats.lst"
    model.write_text(arpa(unigrams, bigrams))
    lexicon.write_text(spelled(("THE", "CAT", "KAT", "SAT")))
    return model, lexicon


def test_model_corrects_what_greedy_misspells(flashlight, cats):
    logits = heard("THE|KAT|SAT|", doubtful=[(4, "C")])
    lengths = torch.tensor([len(logits)])
    assert ASR.predict(torch.from_numpy(logits)[None], lengths, Labels((SYMBOLS,))) == ["THE KAT SAT"]
    assert lm.LanguageModel(*cats).decode(logits) == "THE CAT SAT"
    assert lm.LanguageModel(*cats, lm.Weights(lm=0.0)).decode(logits) == "THE KAT SAT"


def test_end_symbol_in_the_output_changes_no_word(flashlight, cats):
    """SUPERB's targets end with ``</s>``, which is in no word of the lexicon."""
    logits = heard("THE|CAT|SAT|")
    end = np.full((2, len(SYMBOLS)), -9.0, dtype=np.float32)
    end[:, SYMBOLS.index("</s>")] = 3.0
    assert lm.LanguageModel(*cats).decode(np.concatenate([logits, end])) == "THE CAT SAT"


def test_nothing_heard(flashlight, cats):
    decoder = lm.LanguageModel(*cats)
    assert decoder.decode(np.zeros((0, 32), np.float32)) == ""
    silence = np.full((5, 32), -9.0, np.float32)
    silence[:, 0] = 3.0
    assert decoder.decode(silence) == ""


def test_compressed_model_is_the_same(flashlight, cats, tmp_path):
    model, lexicon = cats
    packed = tmp_path / "cats.arpa.gz"
    packed.write_bytes(gzip.compress(model.read_bytes()))
    logits = heard("THE|KAT|SAT|", doubtful=[(4, "C")])
    assert lm.LanguageModel(packed, lexicon).decode(logits) == "THE CAT SAT"


@dataclass
class S3prlTable:
    """What s3prl's decoder asks of its symbol table."""

    indices: dict[str, int]

    def __len__(self):
        return len(self.indices)

    def index(self, symbol):
        return self.indices[symbol]

    def bos(self):
        return 0

    def unk(self):
        return 3


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_as_s3prl_decodes(flashlight, files):
    """s3prl's own decoder with its options, on logits as a recogniser gives them: all 32 symbols, some noise."""
    pytest.importorskip("s3prl", reason="s3prl is not installed (it comes with the dev extra)")
    theirs = importlib.import_module("s3prl.downstream.asr.w2l_decoder")
    table = S3prlTable({symbol: place for place, symbol in enumerate(SYMBOLS)})
    model, lexicon = files
    options = Namespace(
        nbest=1, beam=5, beam_size_token=32, beam_threshold=25, kenlm_model=str(model), lexicon=str(lexicon)
    )
    vars(options).update(lm_weight=2, word_score=-1, unk_weight=-math.inf, sil_weight=0)
    reference = theirs.W2lKenLMDecoder(options, table)
    decoder = lm.LanguageModel(*files)
    torch.manual_seed(0)
    said = set()
    for trial in range(60):
        logits = torch.from_numpy(heard(random.Random(trial).choices("AB|", k=9), frames=1))
        logits = logits + 2.5 * torch.randn_like(logits)
        expected = " ".join(reference.decode(logits.log_softmax(-1)[None])[0][0]["words"])
        assert decoder.decode(logits.numpy()) == expected
        said.add(expected)
    assert len(said) > 20


def test_log_softmax_is_torchs():
    logits = torch.randn(7, 32, generator=torch.Generator().manual_seed(1)) * 30
    torch.testing.assert_close(torch.from_numpy(lm.log_softmax(logits.numpy())), logits.log_softmax(-1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("CAT\tC A T |\nDOG\tD O G\n", "line 2 is no line"),
        ("CAT\tC A T |\n\n", "line 2 is no line"),
        ("CAT |\n", "line 1 is no line"),
        ("<unk> U N K |\n", "line 1 is no line"),
        ("cat c a t |\n", "line 1: 'c' is no letter"),
        ("END </s> |\n", "line 1: '</s>' is no letter"),
        ("", "is empty"),
    ],
)
def test_malformed_lexicon(tmp_path, content, message):
    file = tmp_path / "words.lst"
    file.write_text(content)
    with pytest.raises(SlimbenchError, match=message) as caught:
        lm.read_lexicon(file)
    assert str(file) in str(caught.value)


def test_lexicon_keeps_all_spellings_of_a_word_once(tmp_path):
    file = tmp_path / "words.lst"
    file.write_text("MR M R |\nIT'S I T ' S |\nMR\tM I S T E R |\nMR M R |\n")
    assert lm.read_lexicon(file) == {"MR": [[*"MR|"], [*"MISTER|"]], "IT'S": [[*"IT'S|"]]}


def test_lexicon_as_flashlight_reads_it(flashlight, files):
    theirs = importlib.import_module("flashlight.lib.text.dictionary").load_words(str(files[1]))
    assert {**lm.read_lexicon(files[1]), lm.UNKNOWN: []} == theirs


def test_missing_and_broken_models(flashlight, files, tmp_path):
    model, lexicon = files
    with pytest.raises(SlimbenchError, match="no such language model"):
        lm.LanguageModel(tmp_path / "none.arpa", lexicon)
    with pytest.raises(SlimbenchError, match="KenLM reads"):
        lm.LanguageModel(lexicon, lexicon)
    cut = tmp_path / "cut.arpa"
    cut.write_text(model.read_text()[:120])
    with pytest.raises(SlimbenchError, match="KenLM reads"):
        lm.LanguageModel(cut, lexicon)
    other = tmp_path / "lower.arpa"
    other.write_text(model.read_text().replace("A", "a").replace("B", "b"))
    with pytest.raises(SlimbenchError, match="none of the words"):
        lm.LanguageModel(other, lexicon)


def test_diverged_logits(flashlight, files):
    decoder = lm.LanguageModel(*files)
    logits = np.zeros((4, 32), np.float32)
    with pytest.raises(ValueError, match="shape"):
        decoder.decode(logits[:, :5])
    logits[2, 3] = np.nan
    with pytest.raises(SlimbenchError, match="not finite"):
        decoder.decode(logits)


def test_without_the_extra(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "flashlight.lib.text.decoder", None)
    with pytest.raises(SlimbenchError, match=r"needs flashlight-text .*install -e '\.\[lm\]'"):
        lm.LanguageModel(*files)
    monkeypatch.setattr(lm, "PACKAGE", "flashlight-text-that-nobody-has")
    with pytest.raises(SlimbenchError, match="install the extra"):
        lm.identity(*files)


def test_identity_follows_contents(flashlight, files):
    model, lexicon = files
    before = lm.identity(model, lexicon)
    assert before["weights"]["beam"] == 5
    assert lm.identity(model, lexicon, lm.Weights(lm=1.5)) != before
    model.write_text(model.read_text() + "\n")
    after = lm.identity(model, lexicon)
    assert [key for key in before if before[key] != after[key]] == ["model_digest"]


def test_a_folder_offers_its_language_model_or_none_or_says_what_is_missing(tmp_path):
    assert ASR.second_decode(tmp_path) is None
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / lm.LEXICON).write_text(spelled(WORDS))
    with pytest.raises(SlimbenchError, match=r"4-gram\.arpa: is missing"):
        ASR.second_decode(tmp_path)
    pytest.importorskip("flashlight.lib.text", reason="the extra lm is not installed")
    (tmp_path / "lm" / "4-gram.arpa").write_text(arpa(UNIGRAMS, BIGRAMS))
    second = ASR.second_decode(tmp_path)
    assert second.metric == "wer_lm"
    assert set(second.identity) == {"decoder", "model", "model_digest", "lexicon", "lexicon_digest", "weights"}
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32) * 3
    logits = logits_of(("<s>", "|", "A", "B"), rows)
    said = second.task.predict(torch.tensor(logits)[None].repeat(2, 1, 1), torch.tensor([9, 4]), Labels((SYMBOLS,)))
    alone = lm.LanguageModel(tmp_path / "lm" / "4-gram.arpa", tmp_path / "lm" / lm.LEXICON)
    assert said == [alone.decode(logits), alone.decode(logits[:4])]
