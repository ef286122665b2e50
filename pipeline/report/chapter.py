"""What a further strategy adds to the report, beside the trees: networks, jobs, a sentence, tables, figures."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.report.network import Contender, Network, Row
from pipeline.report.style import Drawing


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: its text, small print after it, the task whose dot it bears, the job that made it.

    `value` is the number that the text rounds, by which the table sorts.
    """

    text: str
    small: str = ""
    task: str = ""
    job: str = ""
    best: bool = False
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A table of the page, its first line the head, and its data as rows of `tables/<stem>.csv`."""

    stem: str
    title: str
    caption: str
    lines: Sequence[Sequence[Cell]]
    rows: Sequence[Row]

    @property
    def turned(self) -> Sequence[Sequence[Cell]]:
        """Rows as columns: for tables that would be too wide."""
        return list(zip(*self.lines, strict=True))


@dataclass(frozen=True, kw_only=True)
class Job:
    """A trained job as the page lists it: what it trained, its keys, its seconds over all of them, kept epochs."""

    name: str
    keys: tuple[str, ...]
    seconds: float
    epochs: tuple[int, ...]


class Chapter(ABC):
    """One strategy's part of the report; `name` is its section of the page and the strategy of its networks."""

    name: str
    label: str
    title: str

    @abstractmethod
    def networks(self) -> Sequence[Network]:
        """Networks for all tasks of the study: further rows of its results."""

    @abstractmethod
    def contenders(self, trained: Sequence[Network]) -> Iterator[Contender]:
        """Those networks, and what they are compared with.

        `trained` are the single-task networks and the trees, from which some of them start.
        """

    @abstractmethod
    def jobs(self) -> Iterator[Job]:
        """Every job that this strategy trained, once."""

    @abstractmethod
    def lead(self) -> str:
        """The result in one or two sentences, also where it is behind."""

    @abstractmethod
    def tables(self) -> Iterator[PageTable]:
        """The tables of the section, in order."""

    @abstractmethod
    def drawings(self) -> Iterator[Drawing]:
        """The figures of the section, in order."""
