"""A check of one row of docs/compatibility.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab import Lab


@dataclass(frozen=True)
class Check:
    """`run` returns what was seen, and raises an AssertionError where it is not what the row says."""

    name: str
    run: Callable[[Lab], str]


class Checks:
    """The checks of one kind, in the order of the document."""

    def __init__(self) -> None:
        self.all: list[Check] = []

    def row(self, name: str) -> Callable[[Callable[[Lab], str]], Callable[[Lab], str]]:
        def add(run: Callable[[Lab], str]) -> Callable[[Lab], str]:
            self.all.append(Check(name, run))
            return run

        return add
