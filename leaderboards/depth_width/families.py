"""What is compared: students, their families and budgets, and columns of their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from leaderboards.published import MEASURED, Origin
from leaderboards.resamples import Drawn


@dataclass(frozen=True)
class Member:
    """One student: its number of layers, the size of its states, and its parameters."""

    name: str
    depth: int
    width: int
    params: float
    method: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Depth and width."""
        return self.depth, self.width


@dataclass(frozen=True)
class Family:
    """Students of one teacher, one kind and one method, by rising parameters, of at least two shapes.

    Attributes:
        name: for people, the method at its end where there is one.
        teacher: its name.
        members: the students; several of one shape are trainings of it with different seeds.
        method: how they were made, as their cards say; empty where they do not, and of published students.
    """

    name: str
    teacher: str
    members: tuple[Member, ...]
    method: str = ""

    @property
    def kind(self) -> str:
        """The name without the method."""
        return self.name.removesuffix(f", {self.method}") if self.method else self.name


@dataclass(frozen=True)
class Budget:
    """Members of a family with equally many parameters, within a tolerance, and at least two depths."""

    family: Family
    members: tuple[Member, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """The parameters of its smallest and of its largest member."""
        params = [member.params for member in self.members]
        return min(params), max(params)

    @property
    def size(self) -> str:
        """The parameters in words: ``1.4 M``, or a range where one decimal tells its ends apart."""
        ends = [f"{params / 1e6:.1f}" for params in self.ends]
        return f"{ends[0]} M" if ends[0] == ends[1] else f"{ends[0]}–{ends[1]} M"

    def label(self, beside: Sequence[Budget]) -> str:
        """The size, with the method or the family's name where budgets of several families stand side by side."""
        others = {other.family for other in beside}
        if len({family.name for family in others}) == 1:
            return self.size
        alike = len({family.kind for family in others}) == 1 and all(family.method for family in others)
        return f"{self.family.method if alike else self.family.name}, {self.size}"

    @property
    def spread(self) -> float:
        """How much more parameters the largest has, as a share."""
        low, high = self.ends
        return high / low - 1.0


@dataclass(frozen=True)
class Column:
    """The scores of a task, measured or published, never both.

    Attributes:
        task: its name; ``title`` of its metric with an arrow that points to better.
        values: in percent, by name of the member; ``signs`` follow a value in print (how it reached us).
        drawn: the same scores on joint resamples; ``None`` where there are none.
    """

    task: str
    title: str
    higher_is_better: bool
    values: Mapping[str, float]
    origin: Origin = MEASURED
    signs: Mapping[str, str] = field(default_factory=dict)
    drawn: Drawn | None = None
