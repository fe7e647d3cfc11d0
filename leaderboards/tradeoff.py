"""The arithmetic of compression: who is on the Pareto front, and how much of a teacher's gain a student keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


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


def kept(student: float, teacher: float, control: float) -> float:
    """Percent of the teacher's gain over the control that the student keeps, from their scores in percent.

    Below 0 the student is worse than the control, above 100 better than its teacher. Say it only where the teacher
    shows a gain (:func:`leaderboards.letters.ahead`): a share of noise says nothing.
    """
    return 100.0 * (student - control) / (teacher - control)


def front(
    points: Mapping[str, tuple[float, float]], floors: Mapping[str, float], higher_is_better: bool
) -> list[tuple[str, float, float]]:
    """The Pareto front, by rising cost, as (name, cost, score): the same for the report and the page.

    Args:
        points: cost and score by name.
        floors: scores of features without parameters, by name. They cost 0 here, so that they are the first step.
        higher_is_better: direction of the score.
    """
    everything = {**{name: (0.0, score) for name, score in floors.items()}, **points}
    names = list(everything)
    return [(names[i], *everything[names[i]]) for i in pareto([everything[name] for name in names], higher_is_better)]
