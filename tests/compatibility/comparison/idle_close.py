"""An endpoint closes connections that were idle for some seconds, behind a network that takes 100 ms each way.

A request that is sent in the last 200 ms before meets a closed connection. Requests come at all distances around that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import programs
from lab import Lab

from .fronts import Service, fronts
from .load import Count, at_once, idle_between
from .table import Row

DELAY = 0.1
CLIENTS = 4
VARIANTS = [(method, keeps) for method in ("GET", "POST") for keeps in (False, True)]


def gaps(seconds: int) -> list[float]:
    return [seconds - 0.25 + step * 0.02 for step in range(16)]


def relay_to(lab: Lab, server: programs.Server) -> programs.Server:
    return programs.python_server(lab.folder, "relay", str(server.port), str(DELAY))


def rows(lab: Lab) -> Iterator[Row]:
    servers = {
        "gunicorn 27.0.1, 2 s": programs.gunicorn(lab.folder, "--threads", "64", "--keep-alive", "2"),
        "uvicorn 0.54.0, 1 s": programs.uvicorn(lab.folder, "--timeout-keep-alive", "1"),
    }
    seconds = dict(zip(servers, (2, 1), strict=True))
    relays = {label: relay_to(lab, server) for label, server in servers.items()}
    # Each kind of request has a service of its own, so that the others use none of its connections.
    names = {f"idle{n}": kind for n, kind in enumerate((label, *variant) for label in servers for variant in VARIANTS)}
    services = {name: Service((relays[label].addr,), is_checked=False) for name, (label, _, _) in names.items()}
    found: list[Row] = []
    threads: list[threading.Thread] = []
    try:
        with fronts(lab, services) as taken:
            for name, (label, method, keeps) in names.items():
                kind = f"{method}, {'kept' if keeps else 'new'} client connections"
                row = Row(f"idle close of {label}: {kind}", is_idempotent=method == "GET")
                for front in taken[name]:
                    row.counts[front.proxy] = count = Count()
                    clients = (idle_between(front, method, gaps(seconds[label]), keeps, count) for _ in range(CLIENTS))
                    threads.extend(clients)
                found.append(row)
            at_once(threads)
    finally:
        for each in [*relays.values(), *servers.values()]:
            each.stop()
    yield from found
