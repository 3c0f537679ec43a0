"""An endpoint closes connections that were idle for some seconds, behind a network that takes 100 ms each way.

A request that is sent in the last 200 ms before meets a closed connection. Requests come at all distances around that.
"""

from __future__ import annotations

from collections.abc import Iterator

import programs
from cluster import free_ports
from lab import Lab

from .fronts import Service, fronts
from .load import Count, at_once, idle_between
from .table import Row

DELAY = 0.1
CLIENTS = 4
VARIANTS = [(method, keeps) for method in ("GET", "POST") for keeps in (False, True)]


def gaps(seconds: int) -> list[float]:
    return [seconds - 0.25 + step * 0.02 for step in range(16)]


def rows(lab: Lab) -> Iterator[Row]:
    servers = [
        ("gunicorn 27.0.1, 2 s", 2, programs.gunicorn(lab.folder, "--threads", "64", "--keep-alive", "2")),
        ("uvicorn 0.54.0, 1 s", 1, programs.uvicorn(lab.folder, "--timeout-keep-alive", "1")),
    ]
    relays = []
    for _, _, server in servers:
        [port] = free_ports(1)
        command = [programs.sys.executable, str(programs.SERVERS / "relay.py"), str(port), str(server.port), str(DELAY)]
        relays.append(programs.Server(command, port, lab.folder / f"relay-{port}.log"))
    services, found = {}, {}
    for number, relay in enumerate(relays):
        for variant in range(len(VARIANTS)):
            services[f"idle{number}-{variant}"] = Service((relay.addr,), is_checked=False)
    try:
        with fronts(lab, services) as taken:
            threads = []
            for number, (label, seconds, _) in enumerate(servers):
                for variant, (method, keeps) in enumerate(VARIANTS):
                    row = Row(
                        f"idle close of {label}: {method}, {'kept' if keeps else 'new'} client connections",
                        is_idempotent=method == "GET",
                    )
                    for front in taken[f"idle{number}-{variant}"]:
                        row.counts[front.proxy] = Count()
                        for _ in range(CLIENTS):
                            count, thread = idle_between(front, method, gaps(seconds), keeps)
                            found.setdefault(row.name, (row, []))[1].append((front.proxy, count))
                            threads.append(thread)
            at_once(threads)
    finally:
        for each in [*relays, *(server for _, _, server in servers)]:
            each.stop()
    for row, counts in found.values():
        for proxy, count in counts:
            row.counts[proxy].requests += count.requests
            row.counts[proxy].failed += count.failed
            row.counts[proxy].reasons += count.reasons
        yield row
