"""A body of 40 MB is refused before it has been read, by the endpoint or by the proxy. The client reads the answer once
it has sent the body, as Python's http.client does."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException

import programs
from lab import Lab

from .fronts import Front, Service, fronts
from .load import Count
from .table import Row

UPLOADS = 10
BODY = b"x" * 40_000_000
MAX_BODY = 1_000_000


def upload(front: Front, path: str, chunked: bool, refusal: int) -> str | None:
    """None where the client has read the refusal."""
    connection = HTTPConnection(front.host, front.port, timeout=60)
    parts = (BODY[at : at + 1_000_000] for at in range(0, len(BODY), 1_000_000))
    try:
        body = parts if chunked else BODY
        connection.request("POST", path, body, {"host": front.name}, encode_chunked=chunked)
        status = connection.getresponse().status
        return None if status == refusal else str(status)
    except (OSError, HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def rows(lab: Lab) -> Iterator[Row]:
    limit = 'client_max_body_size 1m; location / { proxy_pass http://127.0.0.1:9; }'
    kinds = {
        "413 of nginx 1.22.1": (programs.nginx(lab.folder, f"server {{ listen PORT; {limit} }}"), "/", 413, None),
        "413 of waitress 3.0.2": (programs.python_server(lab.folder, "waitress_app"), "/", 413, None),
        "400 of Node 20": (programs.node(lab.folder, "early.js"), "/early", 400, None),
        "413 of the proxy": (programs.uvicorn(lab.folder), "/", 413, MAX_BODY),
    }
    try:
        for label, (server, path, refusal, max_body) in kinds.items():
            service = Service((server.addr,), max_body=max_body, is_checked=False)
            with fronts(lab, {"upload": service}) as taken:
                for chunked in (False, True):
                    form = "chunked" if chunked else "Content-Length"
                    row = Row(f"40 MB refused: {label}, {form}")
                    for front in taken["upload"]:
                        count = row.counts[front.proxy] = Count()
                        for _ in range(UPLOADS):
                            count.add(upload(front, path, chunked, refusal))
                    yield row
    finally:
        for server, *_ in kinds.values():
            server.stop()
