"""Ringmaster, nginx and HAProxy before the same servers. Usage: compare.py [NAME...], with the names of comparison/.

Required of each row: no more requests fail behind Ringmaster than behind the better of the two, and no idempotent ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from comparison import discovery, goaway, idle_close, restart, uploads
from comparison.table import Row, markdown, reasons
from lab import Lab

KINDS: dict[str, Callable[[Lab], Iterator[Row]]] = {
    "idle_close": idle_close.rows,
    "goaway": goaway.rows,
    "restart": restart.rows,
    "uploads": uploads.rows,
    "discovery": discovery.rows,
}


def main(*names: str) -> int:
    rows: list[Row] = []
    with Lab() as lab:
        for name in names or KINDS:
            for row in KINDS[name](lab):
                rows.append(row)
                print("  ".join(row.cells()), *reasons(row), sep="\n", flush=True)
    print(markdown(rows))
    faults = [fault for row in rows if (fault := row.fault())]
    print(*faults, sep="\n", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
