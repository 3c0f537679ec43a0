"""Servers behind the proxy: that they still do what surprises, and that no client of the proxy notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import programs
from check import Checks
from cluster import binary, eventually, free_ports
from comparison.fronts import Front
from comparison.goaway import nginx_endpoint
from comparison.load import at_once, in_a_row
from lab import Lab
from programs import Server
from wire import Wire

CHECKS = Checks()


def is_400_for_an_empty_host(server: Server) -> bool:
    with Wire("127.0.0.1", server.port) as wire:
        return wire.ask("GET", "/", "").status == 400


def idle_time(server: Server, up_to: float) -> float:
    """How long the server keeps a connection without a request."""
    with Wire("127.0.0.1", server.port) as wire:
        wire.ask("GET", "/", "x")
        began = time.monotonic()
        assert wire.ends_within(up_to), f"the connection is still open after {up_to} s"
        return time.monotonic() - began


def through(lab: Lab, name: str, count: int, method: str, pause: float, body: str = "") -> list[int]:
    """The statuses of requests that come one after the other, each on a connection of its own."""
    statuses = []
    for _ in range(count):
        with Wire(*lab.proxy) as wire:
            length = [f"Content-Length: {len(body)}"] if body else []
            wire.send(f"{method} / HTTP/1.1\r\n" + "\r\n".join([f"Host: {name}", *length]) + f"\r\n\r\n{body}")
            statuses.append(wire.answer().status)
        time.sleep(pause)
    return statuses


@CHECKS.row("goaway")
def goaway(lab: Lab) -> str:
    server, _ = nginx_endpoint(lab)
    with server:
        name = lab.serve(server.addr, protocol="http2")
        counts = {}
        for method in ("GET", "POST"):
            counts[method], threads = in_a_row(Front("Ringmaster", *lab.proxy, name), method, 8, 100)
            at_once(threads)
        assert not any(count.failed for count in counts.values()), {m: c.reasons for m, c in counts.items()}
        resends = lab.metric("ringmaster_proxy_resends_total", name)
        assert resends > 0, "the GOAWAY dropped nothing"
        return f"{resends:.0f} requests sent again; 0 of 1600 failed"


@CHECKS.row("empty-host")
def empty_host(lab: Lab) -> str:
    servers = {
        "nginx": programs.nginx(lab.folder, "server { listen PORT; }"),
        "Apache": programs.apache(lab.folder),
        "lighttpd": programs.lighttpd(lab.folder),
    }
    try:
        for label, server in servers.items():
            assert is_400_for_an_empty_host(server), f"{label} accepts an empty Host"
            name = lab.serve(server.addr, route={"host": None, "path_prefix": f"/{label}", "rewrite_prefix": "/"})
            with Wire(*lab.proxy) as wire:
                wire.send(f"GET /{label}/ HTTP/1.0\r\n\r\n")
                status = wire.answer().status
            assert status == 200, f"{label} behind {name}: {status}"
    finally:
        for server in servers.values():
            server.stop()
    return "400 to an empty Host; 200 through the proxy"


@CHECKS.row("http2-idle-close")
def http2_idle_close(lab: Lab) -> str:
    with programs.hypercorn(lab.folder) as server:
        seconds = idle_time(server, 7)
        assert 4 < seconds < 6, f"hypercorn closes after {seconds:.1f} s"
        name = lab.serve(server.addr, protocol="http2")
        # One request at a time, so that each finds the connection at the end of its idle time.
        statuses = through(lab, name, 4, "GET", 5.0)
        assert statuses == [200] * 4, statuses
    return f"closes after {seconds:.1f} s; 4 of 4 GETs at that moment answered"


@CHECKS.row("idle-close")
def idle_close(lab: Lab) -> str:
    seen = []
    for label, server, low, high in (
        ("uvicorn", programs.uvicorn(lab.folder), 4.5, 6.5),
        ("gunicorn", programs.gunicorn(lab.folder, "--threads", "8"), 1.5, 3.5),
    ):
        with server:
            seconds = idle_time(server, 8)
            assert low < seconds < high, f"{label} closes after {seconds:.1f} s"
            with Wire("127.0.0.1", server.port) as wire:
                assert "keep-alive" not in wire.ask("GET", "/", "x").headers, f"{label} says how long"
            name = lab.serve(server.addr)
            statuses = through(lab, name, 5, "POST", round(seconds), "body")
            assert statuses == [200] * 5, f"{label}: {statuses}"
            seen.append(f"{label} closes after {seconds:.1f} s")
    return "; ".join(seen) + "; all POSTs answered"


@CHECKS.row("keep-alive-timeout")
def keep_alive_timeout(lab: Lab) -> str:
    with programs.node(lab.folder, "keep_alive.js") as server:
        with Wire("127.0.0.1", server.port) as wire:
            said = wire.ask("GET", "/", "x").headers.get("keep-alive")
        assert said == "timeout=2", said
        name = lab.serve(server.addr)
        statuses = through(lab, name, 3, "POST", 2.0, "body")
        assert statuses == [200] * 3, statuses
    return "says timeout=2; all POSTs after 2 s answered"


def head_has_body(server: Server) -> bool:
    with Wire("127.0.0.1", server.port) as wire:
        wire.ask("HEAD", "/", "x")
        time.sleep(0.3)
        wire.socket.setblocking(False)
        try:
            return wire.left + wire.socket.recv(4) == b"body"
        except BlockingIOError:
            return wire.left == b"body"


@CHECKS.row("head-with-a-body")
def head_with_a_body(lab: Lab) -> str:
    for script in ("aiohttp_app", "cheroot_app", "waitress_head"):
        with programs.python_server(lab.folder, script) as server:
            assert head_has_body(server), f"{script} sends no body on HEAD"
            name = lab.serve(server.addr)
            with Wire(*lab.proxy) as wire:
                for number in range(20):
                    assert wire.ask("HEAD", "/", name).status == 200
                    answer = wire.ask("GET", "/", name)
                    assert (answer.status, answer.body) == (200, b"body"), f"{script}, GET {number}: {answer}"
    return "20 of 20 GETs after HEADs answered, for each"


@CHECKS.row("early-answer")
def early_answer(lab: Lab) -> str:
    servers = {
        "Node": programs.node(lab.folder, "early.js"),
        "gunicorn": programs.gunicorn(lab.folder, "--threads", "4"),
        "waitress": programs.python_server(lab.folder, "waitress_app"),
    }
    refusals = {"Node": 400, "gunicorn": 400, "waitress": 413}
    size = 8_000_000
    try:
        for label, server in servers.items():
            name = lab.serve(server.addr)
            with Wire(*lab.proxy, timeout=30) as wire:
                wire.send(f"POST /early HTTP/1.1\r\nHost: {name}\r\nContent-Length: {size}\r\n\r\n")
                for _ in range(size // 100_000):
                    wire.send(b"x" * 100_000)
                status = wire.answer().status
            assert status == refusals[label], f"{label}: {status}"
    finally:
        for server in servers.values():
            server.stop()
    return "a client that sends 8 MB first reads the answer of each"


@CHECKS.row("underscores")
def underscores(lab: Lab) -> str:
    seen = []
    for label, server in (
        ("wsgiref", programs.python_server(lab.folder, "wsgiref_app")),
        ("uvicorn", programs.uvicorn(lab.folder)),
    ):
        with server:
            with Wire("127.0.0.1", server.port) as wire:
                direct = wire.ask("GET", "/headers", "x", "X_User: evil", "Connection: close").text
            assert "evil" in direct, f"{label} drops X_User"
            name = lab.serve(server.addr, route={"set_request_headers": {"X-User": "alice"}})
            with Wire(*lab.proxy) as wire:
                text = wire.ask("GET", "/headers", name, "X_User: evil", "X-User: evil").text
            assert "alice" in text and "evil" not in text, f"{label}: {text}"
            seen.append(label)
    return f"{' and '.join(seen)} hand X_User on; behind the proxy it is replaced"


@CHECKS.row("forwarded-prefix")
def forwarded_prefix(lab: Lab) -> str:
    with programs.python_server(lab.folder, "flask_app") as server:
        with Wire("127.0.0.1", server.port) as wire:
            assert wire.ask("GET", "/", "x", "Connection: close").text == "/"
        lab.serve(server.addr, route={"host": "flask", "path_prefix": "/app", "rewrite_prefix": "/"})
        with Wire(*lab.proxy) as wire:
            linked = wire.ask("GET", "/app/", "flask").text
        assert linked == "/app/", linked
    return "links to /app/ behind the prefix /app"


@CHECKS.row("register-and-signals")
def register_and_signals(lab: Lab) -> str:
    with programs.gunicorn(lab.folder) as alone:
        os.killpg(alone.process.pid, signal.SIGHUP)
        eventually("a worker to die of it", lambda: "SIGHUP" in alone.log.read_text() or None, 10)
    [port] = free_ports(1)
    lab.cluster.call("PUT", "/v1/upstreams/registered", {})
    addr = f"127.0.0.1:{port}"
    server = [sys.executable, "-m", "gunicorn", "--bind", addr, "--chdir", str(programs.SERVERS), "wsgi:app"]
    register = [binary(), "register", "registered", "--url", lab.cluster.urls[0], "--addr", addr, "--"]
    process = subprocess.Popen(
        [*register, *server], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    path = "/v1/upstreams/registered/healthy"
    try:
        eventually("gunicorn to be registered", lambda: lab.cluster.call("GET", path)["endpoints"] or None, 20)
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
            time.sleep(1)
            assert process.poll() is None, "gunicorn ended at a SIGHUP"
            with Wire("127.0.0.1", port) as wire:
                assert wire.ask("GET", "/", "x").status == 200
        assert lab.cluster.call("GET", path)["endpoints"]
    finally:
        process.terminate()
        ended = process.wait(60)
    assert ended == 0, f"gunicorn ended with {ended}"
    assert not lab.cluster.call("GET", path)["endpoints"]
    return "3 reloads while registered, deregistered at its end"


@CHECKS.row("grpc-health")
def grpc_health(lab: Lab) -> str:
    import grpc

    def detail(server: Server, service: str | None) -> str:
        check = {"type": "grpc", "interval_ms": 200} | ({"service": service} if service else {})
        name = lab.serve_unhealthy(server.addr, protocol="http2", health_check=check)

        def judged() -> str | None:
            return lab.live(name)["endpoints"][0]["detail"] or None

        return eventually("a check", judged, 20)

    with programs.python_server(lab.folder, "grpc_app") as server:
        with grpc.insecure_channel(server.addr) as channel:
            try:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
                raise AssertionError("grpcio has a health service")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        without = detail(server, None)
        assert "12" in without and "UNIMPLEMENTED" in without, without
    with programs.python_server(lab.folder, "grpc_app", "health") as server:
        not_serving = detail(server, "down")
        assert "NOT_SERVING" in not_serving, not_serving
        name = lab.serve(server.addr, protocol="http2", health_check={"type": "grpc", "interval_ms": 200})
        with grpc.insecure_channel("{}:{}".format(*lab.proxy), [("grpc.default_authority", name)]) as channel:
            assert channel.unary_unary("/test/Echo")(b"hello", timeout=10) == b"hello"
    return f"without a health service: {without}"
