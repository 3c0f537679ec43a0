"""Clients of the proxy: that they still do what surprises, and that they get what they should."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from http.client import HTTPConnection

import programs
from check import Checks
from lab import Lab

CHECKS = Checks()


@CHECKS.row("body-before-answer")
def body_before_answer(lab: Lab) -> str:
    # A server that answers and closes: both clients miss the answer.
    abrupt = programs.python_server(lab.folder, "abrupt")
    with abrupt:
        connection = HTTPConnection("127.0.0.1", abrupt.port, timeout=30)
        try:
            connection.request("POST", "/", b"x" * 40_000_000)
            raise AssertionError(f"http.client reads the answer: {connection.getresponse().status}")
        except OSError as error:
            directly = type(error).__name__
        finally:
            connection.close()
    with programs.uvicorn(lab.folder) as server:
        name = lab.serve(server.addr, route={"max_body_bytes": 1_000_000})
        connection = HTTPConnection(*lab.proxy, timeout=60)
        connection.request("POST", "/", b"x" * 40_000_000, {"host": name})
        status = connection.getresponse().status
        assert status == 413, status
        connection.close()
        lab.serve(server.addr, route={"host": "127.0.0.1", "max_body_bytes": 1_000_000})
        url = "http://{}:{}/".format(*lab.proxy)
        fetched = programs.run(programs.find("node"), str(programs.SERVERS / "fetch_client.js"), url).strip()
        assert fetched == "413", f"fetch: {fetched}"
    return f"http.client: {directly} at a server that closes; both read 413 of the proxy"


@CHECKS.row("ab-keep-alive")
def ab_keep_alive(lab: Lab) -> str:
    # Without `Connection: keep-alive`, ab waits for the end of a connection that is kept.
    with programs.python_server(lab.folder, "silent_keep_alive") as server:
        began = time.monotonic()
        ab = [programs.find("ab"), "-k", "-n", "1", "-c", "1", "-s", "2"]
        with suppress(AssertionError):
            programs.run(*ab, f"http://{server.addr}/")
        waited = time.monotonic() - began
        assert waited > 1.5, f"ab ended after {waited:.1f} s"
    url = "http://{}:{}/nowhere".format(*lab.proxy)
    began = time.monotonic()
    printed = programs.run(*ab[:-2], "-H", "Host: nowhere", "-n", "20", url)
    took = time.monotonic() - began
    assert "Keep-Alive requests:    20" in printed and took < 5, f"{took:.1f} s: {printed}"
    return f"waits {waited:.0f} s where it is not told; 20 refusals of the proxy in {took:.1f} s"


@CHECKS.row("node-http2")
def node_http2(lab: Lab) -> str:
    with programs.uvicorn(lab.folder) as server:
        name = lab.serve(server.addr)
        url = "http://{}:{}".format(*lab.proxy)
        client = str(programs.SERVERS / "http2_client.js")
        seen = json.loads(programs.run(programs.find("node"), client, url, name))
    assert seen["continued"], "it was not asked to send its body"
    assert seen["posted"] == {"status": 200, "body": "ok"}, seen
    cookies = [line for line in seen["got"]["body"].splitlines() if line.startswith("cookie=")]
    assert seen["got"]["status"] == 200 and len(cookies) == 1, seen["got"]
    assert cookies[0].count("; ") == seen["crumbs"] - 1
    return f"continued at once; {seen['crumbs']} cookies are one header"


@CHECKS.row("grpc-quiet-stream")
def grpc_quiet_stream(lab: Lab) -> str:
    import grpc

    with programs.python_server(lab.folder, "grpc_app") as server:
        timeouts = {"connect_ms": 1000, "response_ms": 1000, "idle_ms": 1000}
        name = lab.serve(server.addr, protocol="http2", timeouts=timeouts)
        options = [("grpc.default_authority", name)]
        with grpc.insecure_channel("{}:{}".format(*lab.proxy), options) as channel:
            echo, quiet = channel.unary_unary("/test/Echo"), channel.unary_stream("/test/Quiet")
            codes = set()
            for _ in range(6):
                try:
                    list(quiet(b"", timeout=20))
                    raise AssertionError("a quiet stream ended well")
                except grpc.RpcError as error:
                    codes.add(error.code().name)
            assert "INTERNAL" not in codes and "UNKNOWN" not in codes, codes
            assert echo(b"hello", timeout=5) == b"hello"
        [endpoint] = lab.live(name)["endpoints"]
        assert endpoint["ejected_for_ms"] is None, endpoint
    return f"6 quiet streams end with {', '.join(sorted(codes))}; the endpoint is not ejected"
