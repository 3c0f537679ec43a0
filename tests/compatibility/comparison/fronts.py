"""The three proxies before the same endpoints, each configured as one would for production.

nginx 1.22: keep-alive connections to endpoints, an endpoint left out for a second after three failures (by default for
ten after one, and two endpoints are soon both left out), and the defaults for retries (`proxy_next_upstream error
timeout`, which spares methods that are not idempotent). It speaks HTTP/1 alone to endpoints. HAProxy 2.6: `option
redispatch`, checks, and the defaults for retries (three, where no connection was made) and for shared connections
(`http-reuse safe`). Ringmaster: its defaults, and checks as HAProxy has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import programs
from cluster import free_ports
from lab import Lab

NAMES = ("Ringmaster", "nginx", "HAProxy")
CHECK = {"type": "http", "path": "/", "interval_ms": 500, "timeout_ms": 500, "rise": 2, "fall": 3}


@dataclass(frozen=True)
class Service:
    endpoints: tuple[str, ...]
    # Where the endpoints speak HTTP/2 alone: the same servers with HTTP/1, for nginx.
    http1: tuple[str, ...] | None = None
    max_body: int | None = None
    is_checked: bool = True


@dataclass(frozen=True)
class Front:
    """Where a proxy takes requests for a service."""

    proxy: str
    host: str
    port: int
    name: str


def nginx_config(services: dict[str, Service], ports: dict[str, int]) -> str:
    blocks = []
    for name, service in services.items():
        servers = "".join(f"server {addr} max_fails=3 fail_timeout=1s;" for addr in service.http1 or service.endpoints)
        limit = f"client_max_body_size {service.max_body or 0};"
        forward = (
            f'proxy_pass http://{name}; proxy_http_version 1.1; proxy_set_header Connection "";'
            "proxy_set_header Host $host; proxy_connect_timeout 1s;"
        )
        blocks.append(f"upstream {name} {{ {servers} keepalive 64; }}")
        blocks.append(f"server {{ listen 127.0.0.1:{ports[name]}; {limit} location / {{ {forward} }} }}")
    # The port that tells that nginx is ready.
    return "\n".join([*blocks, "server { listen PORT; }"])


def haproxy_config(services: dict[str, Service], ports: dict[str, int], ready: int) -> str:
    lines = ["global", " maxconn 4000", "defaults", " mode http", " timeout connect 1s", " timeout client 60s"]
    lines += [" timeout server 60s", " option redispatch", "frontend ready", f" bind 127.0.0.1:{ready}"]
    for name, service in services.items():
        lines += [f"frontend {name}", f" bind 127.0.0.1:{ports[name]}", f" default_backend {name}"]
        if service.max_body:
            lines += [f" http-request deny deny_status 413 if {{ req.body_size gt {service.max_body} }}"]
        lines += [f"backend {name}", " balance roundrobin"]
        if service.is_checked:
            lines += [" option httpchk GET /", " default-server check inter 500ms"]
        protocol = " proto h2" if service.http1 else ""
        lines += [f" server e{n} {addr}{protocol}" for n, addr in enumerate(service.endpoints, 1)]
    return "\n".join(lines) + "\n"


def haproxy(lab: Lab, config: str, ready: int) -> programs.Server:
    file = lab.folder / f"haproxy-{ready}.cfg"
    file.write_text(config)
    return programs.Server([programs.find("haproxy"), "-db", "-f", str(file)], ready, lab.folder / "haproxy.log")


def ringmaster(lab: Lab, service: Service) -> str:
    upstream: dict[str, Any] = {"health_check": CHECK if service.is_checked else None}
    if service.http1:
        upstream["protocol"] = "http2"
    route = {"max_body_bytes": service.max_body} if service.max_body else {}
    return lab.serve(*service.endpoints, route=route, **upstream)


@contextmanager
def fronts(lab: Lab, services: dict[str, Service]) -> Iterator[dict[str, list[Front]]]:
    """By service: where each of the three proxies takes its requests."""
    [ready, *ports] = free_ports(1 + 2 * len(services))
    for_nginx = dict(zip(services, ports[: len(services)], strict=True))
    for_haproxy = dict(zip(services, ports[len(services) :], strict=True))
    with ExitStack() as stack:
        stack.enter_context(programs.nginx(lab.folder, nginx_config(services, for_nginx)))
        stack.enter_context(haproxy(lab, haproxy_config(services, for_haproxy, ready), ready))
        taken: dict[str, list[Front]] = {}
        for name, service in services.items():
            route = ringmaster(lab, service)
            taken[name] = [
                Front("Ringmaster", *lab.proxy, route),
                Front("nginx", "127.0.0.1", for_nginx[name], name),
                Front("HAProxy", "127.0.0.1", for_haproxy[name], name),
            ]
        yield taken
