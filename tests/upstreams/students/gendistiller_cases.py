"""GenDistiller has no public code; its default sizes are the only printed figure."""

from __future__ import annotations

from student_cases import Size

from upstreams.students.gendistiller import GenDistiller, GenShape

SIZES = [
    Size(
        "gendistiller",
        "GenDistiller (own design)",
        lambda: GenDistiller(GenShape()),
        17.0,
        1,
        source="82 % less than WavLM Base+, arXiv 2406.09444",
    )
]
