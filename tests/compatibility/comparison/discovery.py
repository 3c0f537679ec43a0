"""Thirty endpoints, of which two leave under load: behind Ringmaster's own proxy, and behind HAProxy and nginx that ask
a node's DNS server, HAProxy for SRV records (over TCP, with room for all of them) and nginx for addresses.

An endpoint that leaves is drained first, and stopped once the time to live of the records, 2 s, has passed twice.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection

import programs
from cluster import eventually, free_ports
from lab import Lab

from .fronts import Front, haproxy
from .load import Load
from .table import Row

COUNT = 30
LEAVING = 2
# How long an endpoint that leaves still serves: twice the time to live of the records.
GRACE = 4.0


def asked(front: Front, requests: int = 30 * COUNT) -> int:
    """How many endpoints answer, each of which names itself."""
    seen: Counter[str] = Counter()
    connection = HTTPConnection(front.host, front.port, timeout=10)
    for _ in range(requests):
        connection.request("GET", "/name", headers={"host": front.name})
        seen[connection.getresponse().read().decode()] += 1
    connection.close()
    return sum(name.startswith("127.") for name in seen)


def rows(lab: Lab) -> Iterator[Row]:
    [port, ready, by_haproxy] = free_ports(3)
    hosts = [f"127.0.2.{number}" for number in range(1, COUNT + 1)]
    script = str(programs.SERVERS / "many_hosts.py")
    log = lab.folder / "many_hosts.log"
    command = [sys.executable, script, str(port), "127.0.0.1", *hosts[LEAVING:]]
    staying = programs.Server(command, port, log)
    leaving = [programs.Server([sys.executable, script, str(port), host], port, log) for host in hosts[:LEAVING]]
    name = lab.serve(*(f"{host}:{port}" for host in hosts))
    dns = lab.cluster.dns[0]
    resolved = (
        f"resolver 127.0.0.1:{dns} valid=1s ipv6=off; resolver_timeout 2s; server {{ listen PORT; location / {{"
        f' set $to {name}.upstream.ringmaster; proxy_pass http://$to:{port}; proxy_http_version 1.1;'
        " proxy_connect_timeout 1s; } }"
    )
    config = (
        f"defaults\n mode http\n timeout connect 1s\n timeout client 60s\n timeout server 60s\n option redispatch\n"
        f"resolvers ringmaster\n nameserver n1 tcp@127.0.0.1:{dns}\n accepted_payload_size 65535\n hold obsolete 1s\n"
        f"frontend ready\n bind 127.0.0.1:{ready}\n"
        f"frontend web\n bind 127.0.0.1:{by_haproxy}\n default_backend web\nbackend web\n balance roundrobin\n"
        f" server-template web 40 _{name}._tcp.ringmaster resolvers ringmaster check inter 500ms init-addr none\n"
    )
    nginx = programs.nginx(lab.folder, resolved)
    running = [staying, *leaving, nginx, haproxy(lab, config, ready)]
    try:
        fronts = [
            Front("Ringmaster", *lab.proxy, name),
            Front("nginx", "127.0.0.1", nginx.port, name),
            Front("HAProxy", "127.0.0.1", by_haproxy, name),
        ]
        eventually("HAProxy to find all endpoints", lambda: asked(fronts[2]) == COUNT or None, 30)
        found = {front.proxy: asked(front) for front in fronts}
        loads = {front.proxy: Load(front, "GET", "/?ms=20", 3) for front in fronts}
        time.sleep(1)
        for number, server in enumerate(leaving, 1):
            action = {"type": "set_endpoint_state", "upstream": name, "endpoint": f"e{number}", "state": "drain"}
            plan = lab.cluster.call("POST", "/v1/plans", {"action": action})
            lab.cluster.call("POST", f"/v1/plans/{plan['id']}/apply", {})
            time.sleep(GRACE)
            server.stop()
            time.sleep(2)
        counts = {proxy: load.stop() for proxy, load in loads.items()}
    finally:
        for server in running:
            server.stop()
    reached = ", ".join(f"{proxy} {count}" for proxy, count in found.items())
    yield Row(f"{LEAVING} of {COUNT} endpoints leave: GET", counts, True, f"endpoints that got requests: {reached}")
