"""A recipe that trains in a second."""

from __future__ import annotations

SMALL = {
    "name": "s",
    "kind": "distil",
    "student": {"family": "mini", "layers": 2, "width": 32, "ffn": 64, "head_width": 16},
    "terms": [{"knowledge": "hidden", "student": "layers", "teacher": "depth"}],
    "data": {"hours": 0.3, "seed": 0, "seconds": 3.0},
    "steps": 4,
}
