"""What a check finds: a refusal, or a remark that a reader should see. One sentence each, with file and field."""

from __future__ import annotations

from dataclasses import dataclass

from harness.interface import SlimbenchError


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        where: the file, and the member where it is an archive.
        field: the field of the record, card or manifest; empty where the file as a whole is meant.
        text: what is the matter.
        refuses: whether the file cannot be accepted because of it.
    """

    where: str
    field: str
    text: str
    refuses: bool = True

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.field, self.text) if part) + "."


class RefusedError(SlimbenchError):
    """A file that cannot even be read as what it should be."""

    def __init__(self, where: str, field: str, text: str) -> None:
        self.finding = Finding(where, field, text)
        super().__init__(str(self.finding))


def remark(where: str, field: str, text: str) -> Finding:
    """A finding that refuses nothing."""
    return Finding(where, field, text, refuses=False)
