"""The table of the comparison, and what is required of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .fronts import NAMES
from .load import Count


@dataclass
class Row:
    """What one kind of requests met behind each proxy."""

    name: str
    counts: dict[str, Count] = field(default_factory=dict)
    is_idempotent: bool = False
    note: str = ""
    # Those that meet the same: a proxy that speaks another protocol to the endpoint does not.
    peers: tuple[str, ...] = NAMES[1:]
    # Each proxy loses the requests that a server had taken when it ended: more or fewer of them by chance.
    by_chance: bool = False

    def fault(self) -> str | None:
        ours = self.counts["Ringmaster"].failed
        if self.is_idempotent and ours:
            return f"{self.name}: {ours} idempotent requests failed behind Ringmaster"
        if not self.peers:
            return None
        best = min(self.peers, key=lambda name: self.counts[name].failed)
        theirs = self.counts[best].failed
        # Three standard deviations of a Poisson distribution.
        allowed = theirs + (3 * math.sqrt(max(theirs, 1)) if self.by_chance else 0)
        if ours > allowed:
            return f"{self.name}: {ours} requests failed behind Ringmaster, {theirs} behind {best}"
        return None

    def cells(self) -> list[str]:
        shown = [self.name]
        for name in NAMES:
            count = self.counts.get(name)
            shown.append(f"{count.failed} of {count.requests}" if count else "—")
        return [*shown, self.note]


def markdown(rows: list[Row]) -> str:
    lines = [["failed requests", *NAMES, ""], ["---"] * (len(NAMES) + 2), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def reasons(row: Row) -> list[str]:
    """Why requests failed, by proxy."""
    return [f"    {name}: {dict(count.reasons)}" for name, count in row.counts.items() if count.reasons]
