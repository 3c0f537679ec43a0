"""Two servers under load, of which one at a time is stopped with SIGTERM and started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import programs
from lab import Lab

from .fronts import Service, fronts
from .load import Load
from .table import Row

ROUNDS = 4
CLIENTS = 3
# Checks have found the server that was restarted: it passes two of them, half a second apart.
RECOVERED = 2.5

KINDS: dict[str, tuple[Callable[[Lab], programs.Server], str]] = {
    "gunicorn 27.0.1": (lambda lab: programs.gunicorn(lab.folder, "--threads", "32", "--workers", "2"), "/?ms=50"),
    "uvicorn 0.54.0": (lambda lab: programs.uvicorn(lab.folder), "/?ms=50"),
    "Apache 2.4": (lambda lab: programs.apache(lab.folder), "/cgi/work?ms=50"),
}


def rows(lab: Lab) -> Iterator[Row]:
    for label, (start, path) in KINDS.items():
        servers = [start(lab), start(lab)]
        try:
            with fronts(lab, {"restart": Service(tuple(server.addr for server in servers))}) as taken:
                loads = {
                    (method, front.proxy): Load(front, method, path, CLIENTS)
                    for method in ("GET", "POST")
                    for front in taken["restart"]
                }
                time.sleep(1)
                for number in range(ROUNDS):
                    servers[number % 2].restart()
                    time.sleep(RECOVERED)
                counts = {key: load.stop() for key, load in loads.items()}
        finally:
            for server in servers:
                server.stop()
        for method in ("GET", "POST"):
            of_method = {proxy: count for (which, proxy), count in counts.items() if which == method}
            name = f"SIGTERM of {label}, {ROUNDS} times: {method}"
            yield Row(name, of_method, method == "GET", by_chance=method == "POST")
