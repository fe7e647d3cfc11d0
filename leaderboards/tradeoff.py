"""The arithmetic of compression: who is on the Pareto front, and how much of a teacher's gain a student keeps."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import Record


def pareto(points: Sequence[tuple[float, float]], higher_is_better: bool) -> list[int]:
    """Indices of the points that no other point beats, by rising cost.

    A point (cost, score) is beaten by one that is no worse in both and better in one; equal points beat neither.
    """
    sign = 1.0 if higher_is_better else -1.0
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1]))
    front: list[int] = []
    best = float("-inf")
    for index in order:
        score = sign * points[index][1]
        if score > best or (front and points[front[-1]] == points[index]):
            front.append(index)
            best = score
    return front


def shows_gain(better: Record, worse: Record, higher_is_better: bool) -> bool:
    """Whether one record beats another beyond both 95 % intervals."""
    if higher_is_better:
        return better.ci95[0] > worse.ci95[1]
    return better.ci95[1] < worse.ci95[0]


def kept(student: Record, teacher: Record, control: Record, higher_is_better: bool) -> float | None:
    """Percent of the teacher's gain over the control that the student keeps.

    ``None`` where the teacher shows no gain beyond both intervals: a share of noise says nothing. Below 0 the
    student is worse than the control, above 100 better than its teacher.
    """
    if not shows_gain(teacher, control, higher_is_better):
        return None
    return 100.0 * (student.value - control.value) / (teacher.value - control.value)
