"""Runs the checks of docs/compatibility.md: each starts the foreign program, and looks at what it does and at what
Ringmaster does about it. Usage: run.py [NAME...]. Fails where a row changed, or where a program is missing.
"""

from __future__ import annotations

import re
import sys
import time
import traceback

import api_clients
import endpoint_servers
import proxy_clients
import resolvers
from check import Check
from cluster import ROOT, binary
from lab import Lab
from programs import Missing

CHECKS: dict[str, Check] = {
    check.name: check
    for kind in (endpoint_servers, proxy_clients, resolvers, api_clients)
    for check in kind.CHECKS.all
}


def documented() -> set[str]:
    """The rows that the document names, in the first cells of its tables."""
    cells = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs/compatibility.md").read_text(), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def run(check: Check, lab: Lab) -> tuple[str, str]:
    """`ok`, `missing` or `CHANGED`, and what was seen."""
    try:
        return "ok", check.run(lab)
    except Missing as missing:
        return "missing", str(missing)
    except Exception as error:
        traceback.print_exc()
        return "CHANGED", f"{type(error).__name__}: {error}"


def main(*names: str) -> int:
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"there is no row {', '.join(unknown)}; there are {', '.join(CHECKS)}, and comparison", file=sys.stderr)
        return 2
    differs = documented() ^ set(CHECKS)
    if differs:
        print(f"docs/compatibility.md and the checks differ in {', '.join(sorted(differs))}", file=sys.stderr)
        return 1
    print(f"Ringmaster: {binary()}")
    results = []
    with Lab() as lab:
        for name in names or CHECKS:
            began = time.monotonic()
            print(f"{name} …", flush=True)
            outcome, seen = run(CHECKS[name], lab)
            took = time.monotonic() - began
            print(f"{name}: {outcome} ({took:.0f} s): {seen}", flush=True)
            results.append((name, outcome, seen))
    width = max(len(name) for name, _, _ in results)
    print()
    for name, outcome, seen in results:
        print(f"{name:{width}}  {outcome:8}  {seen.splitlines()[0] if seen else ''}"[:200])
    wrong = [name for name, outcome, _ in results if outcome != "ok"]
    if wrong:
        print(f"not as documented: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
