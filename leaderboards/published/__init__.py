"""Published results of other people: the rows with their sources, and the marks that keep them from passing as ours."""

from leaderboards.published.loader import (
    RANKED,
    Measured,
    Other,
    Published,
    Quantity,
    Row,
    Source,
    Value,
    measured_of,
    of_card,
    published,
    read,
)
from leaderboards.published.marks import MARKS, MEASURED, PUBLISHED, Mark, Origin

__all__ = [
    "MARKS",
    "MEASURED",
    "PUBLISHED",
    "RANKED",
    "Mark",
    "Measured",
    "Origin",
    "Other",
    "Published",
    "Quantity",
    "Row",
    "Source",
    "Value",
    "measured_of",
    "of_card",
    "published",
    "read",
]
