"""ASR with a language model: flashlight-text's lexicon decoder over a KenLM model (protocol section 4.1).

SUPERB reports it in a column of its own; the greedy score stays the main one and alone chooses learning rate and
checkpoint. The weights are SUPERB's and are not tuned. SUPERB's files are LibriSpeech's official 4-gram
(``4-gram.arpa``, openslr.org/11) and fairseq's letter lexicon (``librispeech_lexicon.lst``). Needs the extra ``lm``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downstreams.letters import BORDER, SPECIAL, SYMBOLS
from harness.identity import digest_file
from harness.interface import SlimbenchError

PACKAGE = "flashlight-text"
MODELS = ("4-gram.bin", "4-gram.arpa", "4-gram.arpa.gz")
LEXICON = "librispeech_lexicon.lst"
BLANK = 0
UNKNOWN = "<unk>"
"""The word that stands for all others in the language model; the decoder never says it."""


@dataclass(frozen=True)
class Weights:
    """What the decoder adds up and what it drops; the defaults are SUPERB's (s3prl ``downstream/asr/config.yaml``).

    A sentence scores: its best CTC path's log probability (natural logarithm), plus ``lm`` × its log10 probability in
    the language model with its end, plus ``word`` per word, plus ``silence`` per frame of ``|``.

    Attributes:
        beam: hypotheses kept per frame.
        beam_threshold: hypotheses further below the best one are dropped.
        lm: factor on the language model's score.
        word: added per word.
        silence: added per frame of ``|``.
    """

    beam: int = 5
    beam_threshold: float = 25.0
    lm: float = 2.0
    word: float = -1.0
    silence: float = 0.0


SUPERB = Weights()


class LanguageModel:
    """A decoder of SUPERB's 32 CTC outputs into words of a lexicon, weighed by a language model.

    Args:
        model: an ARPA file (plain or gzip) or a KenLM binary, words spelled as in the lexicon.
        lexicon: lines ``WORD W O R D |``.
        weights: of the search.

    Raises:
        SlimbenchError: the extra is not installed, a file is missing or malformed, or none of the lexicon's words is
            in the language model.
    """

    def __init__(self, model: Path, lexicon: Path, weights: Weights = SUPERB) -> None:
        spellings = read_lexicon(lexicon)
        search = _flashlight("decoder")
        self._words = _flashlight("dictionary").create_word_dict({**spellings, UNKNOWN: []})
        self._model = _load(model, self._words)
        scores = self._scores_at_start([*spellings, UNKNOWN])
        outside = scores.pop(UNKNOWN)
        if all(score == outside for score in scores.values()):
            raise SlimbenchError(
                f"{model}: has none of the words of {lexicon.name}; spell both alike, LibriSpeech's are in upper case."
            )
        options = search.LexiconDecoderOptions(
            beam_size=weights.beam,
            beam_size_token=len(SYMBOLS),
            beam_threshold=weights.beam_threshold,
            lm_weight=weights.lm,
            word_score=weights.word,
            unk_score=-np.inf,
            sil_score=weights.silence,
            log_add=False,
            criterion_type=search.CriterionType.CTC,
        )
        tree = self._tree(search, spellings, scores)
        border, unknown = SYMBOLS.index(BORDER), self._words.get_index(UNKNOWN)
        self._decoder = search.LexiconDecoder(options, tree, self._model, border, BLANK, unknown, [], False)

    def decode(self, logits: NDArray[np.float32]) -> str:
        """The best sentence, words separated by spaces; empty where no word is heard.

        Args:
            logits: (T, 32) outputs of the head for one utterance, its valid frames only; need not be normalised.

        Raises:
            SlimbenchError: a logit is NaN or infinite.
        """
        if logits.ndim != 2 or logits.shape[1] != len(SYMBOLS):
            raise ValueError(f"logits have shape {logits.shape}, not (T, {len(SYMBOLS)})")
        if not np.isfinite(logits).all():
            raise SlimbenchError("A logit is not finite; the probe that made it has diverged.")
        if not len(logits):
            return ""
        scores = log_softmax(logits)
        best = self._decoder.decode(scores.ctypes.data, *scores.shape)[0]
        return " ".join(self._words.get_entry(index) for index in best.words if index >= 0)

    def _scores_at_start(self, words: list[str]) -> dict[str, float]:
        """The language model's score of each word at the start of a sentence."""
        start = self._model.start(False)
        return {word: float(self._model.score(start, self._words.get_index(word))[1]) for word in words}

    def _tree(self, search: ModuleType, spellings: Mapping[str, list[list[str]]], scores: Mapping[str, float]) -> Any:
        """The tree of all spellings. A word's score at the start guides the search until the word is complete."""
        tree = search.Trie(len(SYMBOLS), SYMBOLS.index(BORDER))
        place = {symbol: index for index, symbol in enumerate(SYMBOLS)}
        for word, ways in spellings.items():
            for letters in ways:
                tree.insert([place[letter] for letter in letters], self._words.get_index(word), scores[word])
        tree.smear(search.SmearingMode.MAX)
        return tree


def find(data: Path) -> tuple[Path, Path] | None:
    """The language model ``data/lm/4-gram.{bin,arpa,arpa.gz}`` and ``data/lm/librispeech_lexicon.lst``; None without.

    Raises:
        SlimbenchError: one of the two is missing.
    """
    folder = data / "lm"
    models = [folder / name for name in MODELS if (folder / name).is_file()]
    lexicon = folder / LEXICON
    if not models and not lexicon.is_file():
        return None
    if not models or not lexicon.is_file():
        absent = lexicon if models else folder / MODELS[1]
        raise SlimbenchError(f"{absent}: is missing beside {folder}; give both, or take the folder away.")
    return models[0], lexicon


def identity(model: Path, lexicon: Path, weights: Weights = SUPERB) -> dict[str, Any]:
    """What a decoded text depends on besides the logits, for a record and its key; loads no language model.

    Raises:
        SlimbenchError: a file cannot be read, or the extra is not installed.
    """
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise _not_installed(error) from error
    return {
        "decoder": f"{PACKAGE} {version}",
        "model": model.name,
        "model_digest": digest_file(model),
        "lexicon": lexicon.name,
        "lexicon_digest": digest_file(lexicon),
        "weights": asdict(weights),
    }


def read_lexicon(file: Path) -> dict[str, list[list[str]]]:
    """The spellings of each word, in the file's order.

    Raises:
        SlimbenchError: the file cannot be read, or a line is no ``WORD W O R D |`` in letters of the head.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SlimbenchError(f"{file}: cannot be read as a lexicon ({error}); write lines WORD W O R D |.") from error
    letters = set(SYMBOLS[SPECIAL:]) - {BORDER}
    words: dict[str, list[list[str]]] = {}
    for number, line in enumerate(lines, 1):
        word, *spelling = line.split() or [""]
        if len(spelling) < 2 or spelling[-1] != BORDER or word == UNKNOWN:
            raise SlimbenchError(f"{file}: line {number} is no line such as 'WORD W O R D |'; correct or remove it.")
        if strange := [letter for letter in spelling[:-1] if letter not in letters]:
            raise SlimbenchError(
                f"{file}: line {number}: '{strange[0]}' is no letter of the recogniser; spell with A-Z and ' only."
            )
        ways = words.setdefault(word, [])
        if spelling not in ways:
            ways.append(spelling)
    if not words:
        raise SlimbenchError(f"{file}: is empty; write lines WORD W O R D |.")
    return words


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithm of the softmax over the last axis, contiguous float32 as the decoder reads it."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return np.ascontiguousarray(shifted, dtype=np.float32)


def _load(model: Path, words: Any) -> Any:
    if not model.is_file():
        raise SlimbenchError(f"{model}: no such language model; give an ARPA file or a KenLM binary.")
    try:
        return _flashlight("decoder.kenlm").KenLM(str(model), words)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SlimbenchError(
            f"{model}: is no language model that KenLM reads ({reason}); give an ARPA file or a KenLM binary."
        ) from error


def _flashlight(part: str) -> ModuleType:
    try:
        return importlib.import_module(f"flashlight.lib.text.{part}")
    except ImportError as error:
        raise _not_installed(error) from error


def _not_installed(error: ImportError) -> SlimbenchError:
    reason = str(error).strip().splitlines()[0]
    return SlimbenchError(
        f"Decoding with a language model needs {PACKAGE} ({reason}); install the extra: pip install -e '.[lm]'."
    )
