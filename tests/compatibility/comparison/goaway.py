"""An HTTP/2 endpoint ends each of its connections after some requests, and drops those that are on their way.

nginx as a proxy speaks HTTP/1 to the same server, which closes those connections as often.
"""

from __future__ import annotations

from collections.abc import Iterator

import programs
from cluster import free_ports
from lab import Lab

from .fronts import Service, fronts
from .load import at_once, in_a_row
from .table import Row

NOTE = "nginx by HTTP/1"
# hypercorn drops requests that its GOAWAY names as taken. A proxy cannot send a POST of them again, and one that shares
# connections between clients has more requests on each.
LOSSY = "hypercorn drops requests that it says it has taken; nginx by HTTP/1"


def nginx_endpoint(lab: Lab) -> tuple[programs.Server, Service]:
    [plain] = free_ports(1)
    answer = 'keepalive_requests 20; location / { return 200 "ok"; }'
    server = programs.nginx(
        lab.folder, f"server {{ listen PORT http2; {answer} }} server {{ listen 127.0.0.1:{plain}; {answer} }}"
    )
    return server, Service((server.addr,), (f"127.0.0.1:{plain}",), is_checked=False)


def hypercorn_endpoint(lab: Lab) -> tuple[programs.Server, Service]:
    config = lab.folder / "hypercorn.toml"
    config.write_text("keep_alive_max_requests = 20\n")
    server = programs.hypercorn(lab.folder, "--config", str(config))
    return server, Service((server.addr,), (server.addr,), is_checked=False)


def rows(lab: Lab) -> Iterator[Row]:
    for label, start in (("nginx 1.22.1", nginx_endpoint), ("hypercorn 0.18.0", hypercorn_endpoint)):
        server, service = start(lab)
        with server, fronts(lab, {"goaway": service}) as taken:
            for method in ("GET", "POST"):
                row = Row(f"GOAWAY of {label} after 20 requests: {method}", {}, method == "GET", NOTE)
                if method == "POST" and start is hypercorn_endpoint:
                    row.note, row.peers = LOSSY, ()
                for front in taken["goaway"]:
                    count, threads = in_a_row(front, method, clients=8, requests=150)
                    row.counts[front.proxy] = count
                    at_once(threads)
                yield row
