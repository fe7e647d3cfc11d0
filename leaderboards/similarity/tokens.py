"""What was recognised in the place of each token of a reference."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer

NOTHING = ""
"""What stands in the place of a token that was left out."""


def said_in_place(references: Sequence[str], hypotheses: Sequence[str]) -> list[list[str]]:
    """Per utterance and token of its reference: the token said instead, or :data:`NOTHING`.

    By jiwer's alignment of least edits, of which there can be several. Insertions stand in nobody's place.

    Args:
        references: texts of tokens with blanks between them; none is empty.
        hypotheses: as many.
    """
    plain = [[" ".join(text.split()) for text in texts] for texts in (references, hypotheses)]
    output = jiwer.process_words(plain[0], plain[1])
    found = []
    for reference, hypothesis, chunks in zip(output.references, output.hypotheses, output.alignments, strict=True):
        places = [NOTHING] * len(reference)
        for chunk in chunks:
            if chunk.type in ("equal", "substitute"):
                places[chunk.ref_start_idx : chunk.ref_end_idx] = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        found.append(places)
    return found
