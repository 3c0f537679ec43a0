"""Foreign programs: where they are, what their versions are, and running ones that end with the check.

Programs are looked for in PATH, in the folders of system programs, and below DEBIAN_ROOT, a folder into which packages
were extracted with `dpkg -x` (their libraries are found there, too). A missing program is named with its package.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from cluster import eventually, free_ports

SERVERS = Path(__file__).parent / "servers"

# The packages of programs that have another name.
PACKAGES = {
    "ab": "apache2-utils",
    "apache2": "apache2-bin",
    "dnsmasq": "dnsmasq-base",
    "go": "golang-go",
    "musl-gcc": "musl-tools",
    "named": "bind9",
    "node": "nodejs",
    "promtool": "prometheus",
}


class Missing(Exception):
    """A program that a check needs is not on this machine."""


def debian_root() -> Path | None:
    root = os.environ.get("DEBIAN_ROOT")
    return Path(root) if root else None


def find(program: str) -> str:
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]
    if root := debian_root():
        folders += [str(root / folder) for folder in ("usr/bin", "usr/sbin")]
    found = shutil.which(program, path=":".join(folders))
    if found is None:
        raise Missing(f"{program} (Debian: apt-get install {PACKAGES.get(program, program)})")
    return found


def environment(program: str) -> dict[str, str]:
    """Extracted programs find their libraries beside them, and no other program finds those."""
    root = debian_root()
    if root is None or not program.startswith(str(root)):
        return dict(os.environ)
    return os.environ | {"LD_LIBRARY_PATH": f"{root}/usr/lib/x86_64-linux-gnu"}


def version(program: str, *arguments: str) -> str:
    """The first number with dots that the program prints."""
    asked = [find(program), *(arguments or ("-v",))]
    printed = subprocess.run(asked, capture_output=True, text=True, env=environment(asked[0]), check=False)
    found = re.search(r"\d+(\.\d+)+", printed.stdout + printed.stderr)
    return found.group() if found else "?"


def run(*command: str, within: float = 60, cwd: Path | None = None) -> str:
    """What a program prints that must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=within, cwd=cwd, env=environment(command[0]), check=False
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


class Server:
    """A running program that listens on a port of the loopback interface."""

    def __init__(self, command: Sequence[str], port: int, log: Path, environ: dict[str, str] | None = None) -> None:
        self.command, self.port, self.log, self.environ = list(command), port, log, environ or {}
        self.start()

    @property
    def addr(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        environ = environment(self.command[0]) | self.environ
        with self.log.open("ab") as log:
            # A group of its own: a signal reaches the workers as well.
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=environ, start_new_session=True
            )
        eventually(f"{self.command[0]} to listen (see {self.log})", lambda: self.listens() or None, 30)

    def listens(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{' '.join(self.command)} ended: {self.log.read_text(errors='replace')[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def terminate(self) -> None:
        """As a service manager stops it: SIGTERM to the main process, and the end of all after 10 s."""
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.stop()

    def restart(self) -> None:
        self.terminate()
        self.start()

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def python_server(folder: Path, name: str, *arguments: str) -> Server:
    """One of servers/, with the port as its first argument."""
    [port] = free_ports(1)
    command = [sys.executable, str(SERVERS / f"{name}.py"), str(port), *arguments]
    return Server(command, port, folder / f"{name}-{port}.log")


def gunicorn(folder: Path, *arguments: str, app: str = "wsgi:app") -> Server:
    [port] = free_ports(1)
    options = ["--bind", f"127.0.0.1:{port}", "--chdir", str(SERVERS), *arguments]
    command = [sys.executable, "-m", "gunicorn", *options, app]
    return Server(command, port, folder / f"gunicorn-{port}.log")


def uvicorn(folder: Path, *arguments: str) -> Server:
    [port] = free_ports(1)
    options = ["--host", "127.0.0.1", "--port", str(port), "--app-dir", str(SERVERS), "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", *options, *arguments, "asgi:app"]
    return Server(command, port, folder / f"uvicorn-{port}.log")


def hypercorn(folder: Path, *arguments: str) -> Server:
    [port] = free_ports(1)
    command = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", *arguments, "asgi:app"]
    return Server(command, port, folder / f"hypercorn-{port}.log", {"PYTHONPATH": str(SERVERS)})


def node(folder: Path, script: str, *arguments: str) -> Server:
    [port] = free_ports(1)
    return Server([find("node"), str(SERVERS / script), str(port), *arguments], port, folder / f"{script}-{port}.log")


def nginx(folder: Path, http: str) -> Server:
    """nginx with these directives of `http`, in which PORT stands for its port."""
    [port] = free_ports(1)
    home = folder / f"nginx-{port}"
    (home / "html").mkdir(parents=True)
    (home / "html/index.html").write_text("ok")
    paths = "".join(f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = home / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 2; pid {home}/pid; error_log {home}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; root {home}/html; {paths}\n{http.replace('PORT', f'127.0.0.1:{port}')} }}\n"
    )
    return Server([find("nginx"), "-c", str(config), "-e", f"{home}/error.log"], port, home / "nginx.log")


def apache(folder: Path, directives: str = "") -> Server:
    """Apache with the modules that a plain server has, and CGI scripts from servers/cgi."""
    program = find("apache2")
    [port] = free_ports(1)
    home = folder / f"apache-{port}"
    (home / "html").mkdir(parents=True)
    (home / "html/index.html").write_text("ok")
    modules = ["mpm_event", "authz_core", "alias", "mime", "dir", "cgid", "unixd"]
    built_in = run(program, "-l")
    loaded = [name for name in modules if f"mod_{name}.c" not in built_in and f"{name}.c" not in built_in]
    lines = [f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in loaded]
    config = home / "apache.conf"
    config.write_text(
        "\n".join(lines) + f"\nServerRoot {home}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {home}/pid\n"
        f"ErrorLog {home}/error.log\nDocumentRoot {home}/html\nDirectoryIndex index.html\nTypesConfig /dev/null\n"
        f"User nobody\nGroup nogroup\nScriptSock {home}/cgid\nScriptAlias /cgi/ {SERVERS}/cgi/\n{directives}\n"
    )
    for path in (home, home / "html", *home.parents):
        if str(path).startswith(str(folder)):
            path.chmod(0o755)
    return Server([program, "-f", str(config), "-DFOREGROUND"], port, home / "apache.log")


def lighttpd(folder: Path, directives: str = "") -> Server:
    program = find("lighttpd")
    [port] = free_ports(1)
    home = folder / f"lighttpd-{port}"
    home.mkdir()
    (home / "index.html").write_text("ok")
    config = home / "lighttpd.conf"
    config.write_text(
        f'server.document-root = "{home}"\nserver.port = {port}\nserver.bind = "127.0.0.1"\n'
        f'index-file.names = ("index.html")\n{directives}\n'
    )
    modules = Path(program).parents[1] / "lib/lighttpd"
    return Server([program, "-D", "-f", str(config), "-m", str(modules)], port, home / "lighttpd.log")
