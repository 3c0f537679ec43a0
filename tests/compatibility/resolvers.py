"""Resolvers and balancers that ask the DNS server of a node."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import programs
from check import Checks
from cluster import eventually, free_ports
from lab import Lab
from programs import Missing, Server

CHECKS = Checks()


def endpoints(count: int) -> list[str]:
    """Addresses of which none is asked: there is no check, and no request."""
    return [f"127.0.{1 + number // 250}.{1 + number % 250}:80" for number in range(count)]


def ask(name: str, kind: str, port: int) -> tuple[str, int]:
    """The response code and the number of records, over UDP and where that is truncated over TCP."""
    import dns.message
    import dns.query
    import dns.rcode

    question = dns.message.make_query(name, kind)
    answer, _ = dns.query.udp_with_fallback(question, "127.0.0.1", timeout=10, port=port)
    records = sum(len(each) for each in answer.answer if dns.rdatatype.to_text(each.rdtype) == kind)
    return dns.rcode.to_text(answer.rcode()), records


def answers(port: int) -> bool | None:
    try:
        return ask("ringmaster.", "SOA", port)[0] == "NOERROR" or None
    except OSError:
        return None
    except Exception as error:  # dnspython has its own time-out.
        if type(error).__name__ != "Timeout":
            raise
        return None


def resolver(lab: Lab, program: str, arguments: list[str], port: int) -> Server:
    server = Server([programs.find(program), *arguments], port, lab.folder / f"{program}.log")
    eventually(f"{program} to answer", lambda: answers(port), 20)
    return server


def unbound(lab: Lab, port: int) -> Server:
    config = lab.folder / "unbound.conf"
    config.write_text(
        f'server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n chroot: ""\n username: ""\n use-syslog: no\n'
        f' pidfile: {lab.folder}/unbound.pid\n directory: {lab.folder}\n module-config: "iterator"\n'
        ' do-not-query-localhost: no\n domain-insecure: "ringmaster"\nremote-control:\n control-enable: no\n'
        f'forward-zone:\n name: "ringmaster"\n forward-addr: 127.0.0.1@{lab.cluster.dns[0]}\n'
    )
    return resolver(lab, "unbound", ["-d", "-c", str(config)], port)


def dnsmasq(lab: Lab, port: int) -> Server:
    forward = f"--server=/ringmaster/127.0.0.1#{lab.cluster.dns[0]}"
    listen = ["--port", str(port), "--listen-address=127.0.0.1", "--bind-interfaces"]
    alone = ["--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"]
    pid = f"--pid-file={lab.folder}/dnsmasq.pid"
    return resolver(lab, "dnsmasq", ["--keep-in-foreground", *listen, forward, *alone, pid], port)


def bind(lab: Lab, port: int, options: str) -> Server:
    home = lab.folder / f"bind-{port}"
    home.mkdir()
    config = home / "named.conf"
    config.write_text(
        f'options {{ directory "{home}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n'
        f' pid-file "{home}/pid"; session-keyfile "{home}/key"; managed-keys-directory "{home}";\n'
        f" dnssec-validation no; recursion yes; {options} }};\ncontrols {{ }};\n"
        'zone "ringmaster" { type forward; forward only; forwarders { 127.0.0.1 port '
        f"{lab.cluster.dns[0]}; }}; }};\n"
    )
    return resolver(lab, "named", ["-g", "-c", str(config)], port)


@CHECKS.row("haproxy-srv")
def haproxy_srv(lab: Lab) -> str:
    weighed = lab.serve_unhealthy()
    listed = [{"id": f"e{n}", "addr": f"127.0.1.{n}:80", "weight": weight} for n, weight in enumerate((1, 3, 100))]
    lab.cluster.call("PUT", f"/v1/upstreams/{weighed}", {"endpoints": listed})
    many = lab.serve_unhealthy(*endpoints(60))
    [ready] = free_ports(1)
    config, stats = lab.folder / "srv.cfg", lab.folder / "srv.sock"
    node = f"127.0.0.1:{lab.cluster.dns[0]}"
    asked = {"tcp": (f"tcp@{node}", "accepted_payload_size 65535"), "udp": (node, "")}
    lines = [f"global\n stats socket {stats}\ndefaults\n mode http\n timeout connect 1s\n timeout client 5s"]
    lines += [f" timeout server 5s\nfrontend ready\n bind 127.0.0.1:{ready}"]
    for name, (nameserver, size) in asked.items():
        lines += [f"resolvers {name}\n nameserver n1 {nameserver}\n {size}\n hold obsolete 1s\n hold valid 1s"]
    for name, upstream, by in (("weights", weighed, "tcp"), ("tcp", many, "tcp"), ("udp", many, "udp")):
        template = f"server-template s 64 _{upstream}._tcp.ringmaster resolvers {by} init-addr none"
        lines += [f"backend {name}\n {template}"]
    config.write_text("\n".join(lines) + "\n")

    def servers(backend: str) -> list[list[str]]:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(stats))
            asked.sendall(f"show servers state {backend}\n".encode())
            shown = b"".join(iter(lambda: asked.recv(65536), b"")).decode()
        rows = [line.split() for line in shown.splitlines() if line.startswith(tuple("0123456789"))]
        return [row for row in rows if len(row) > 8 and row[4] != "-"]

    with Server([programs.find("haproxy"), "-db", "-f", str(config)], ready, lab.folder / "srv.log"):
        all_of_them = eventually("60 servers by TCP", lambda: len(servers("tcp")) == 60 or None, 20)
        assert all_of_them
        weights = eventually("3 weights", lambda: (found if len(found := servers("weights")) == 3 else None), 20)
        scaled = sorted(int(row[7]) for row in weights)
        assert scaled == [3, 8, 256], scaled
        by_udp = len(servers("udp"))
        # In one answer of 512 bytes; a second one has others.
        assert 0 < by_udp < 60, by_udp
    return f"60 of 60 servers over TCP, {by_udp} over UDP with 512 bytes; weights 1, 3, 100 are {scaled}"


@CHECKS.row("bind")
def bind_limit(lab: Lab) -> str:
    name = lab.serve_unhealthy(*endpoints(120))
    asked, seen = f"{name}.upstream.ringmaster", {}
    for options, expected in (("", ("SERVFAIL", 0)), ("max-records-per-type 0;", ("NOERROR", 120))):
        [port] = free_ports(1)
        with bind(lab, port, options):
            seen[options] = ask(asked, "A", port)
        assert seen[options] == expected, f"{options or 'defaults'}: {seen[options]}"
    return "SERVFAIL for 120 records; all of them with max-records-per-type 0"


def compile_with_musl(folder: Path) -> Path:
    root = programs.debian_root() or Path("/")
    library, include = root / "usr/lib/x86_64-linux-musl", root / "usr/include/x86_64-linux-musl"
    if not (library / "libc.a").exists():
        raise Missing("musl's C library (Debian: apt-get install musl-dev)")
    program = folder / "getaddrinfo"
    start, end = [str(library / name) for name in ("crt1.o", "crti.o")], str(library / "crtn.o")
    flags = ["-static", "-nostdinc", "-isystem", str(include), "-nostdlib", "-o", str(program)]
    source = str(programs.SERVERS / "getaddrinfo.c")
    programs.run(programs.find("gcc"), *flags, *start, source, str(library / "libc.a"), "-lgcc", "-lgcc_eh", end)
    return program


@CHECKS.row("musl")
def musl(lab: Lab) -> str:
    if os.geteuid() != 0:
        raise Missing("root, to answer at port 53 and to have another /etc/resolv.conf")
    program = compile_with_musl(lab.folder)
    address, config = "127.0.53.53", lab.folder / "resolv.conf"
    config.write_text(f"nameserver {address}\n")
    relay = [sys.executable, str(programs.SERVERS / "dns_relay.py"), address, str(lab.cluster.dns[0])]
    running = subprocess.Popen(relay)
    try:
        time.sleep(0.5)
        assert running.poll() is None, "the relay ended"
        seen = []
        for count in (20, 200):
            name = lab.serve_unhealthy(*endpoints(count))
            inside = f"mount --bind {config} /etc/resolv.conf && exec {program} {name}.upstream.ringmaster"
            seen.append(programs.run(programs.find("unshare"), "--mount", "sh", "-c", inside).strip())
    finally:
        running.kill()
        running.wait()
    assert seen[0] == "20", seen
    assert seen[1].isdigit() and 20 <= int(seen[1]) < 40, seen
    return f"20 of 20 addresses, {seen[1]} of 200"


@CHECKS.row("forwarding-resolvers")
def forwarding_resolvers(lab: Lab) -> str:
    name = lab.serve_unhealthy(*endpoints(60))
    started: dict[str, tuple[Server | None, int]] = {"dnspython": (None, lab.cluster.dns[0])}
    try:
        for label, start in (("unbound", unbound), ("dnsmasq", dnsmasq)):
            [port] = free_ports(1)
            started[label] = (start(lab, port), port)
        for label, (_, port) in started.items():
            for asked, kind in ((f"_{name}._tcp.ringmaster", "SRV"), (f"{name}.upstream.ringmaster", "A")):
                seen = ask(asked, kind, port)
                assert seen == ("NOERROR", 60), f"{label}: {asked} {kind}: {seen}"
            assert ask("nothing.upstream.ringmaster", "A", port) == ("NXDOMAIN", 0), label
    finally:
        for server, _ in started.values():
            if server:
                server.stop()
    return "60 of 60 SRV and A records by each"
