"""Clients that generators make from /openapi.json compile, and make the calls of an operator and of a service.

Usage: openapi_clients.py FOLDER [NAME...]. The folder holds the tools, as scripts/compatibility.d/openapi_clients.sh
installs them: a virtual environment `python`, and `node_modules`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cluster import Cluster, eventually

CLIENTS = Path(__file__).parent / "clients"


class Tools:
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).resolve()
        self.python = self.folder / "python/bin"
        self.document = self.folder / "openapi.json"

    def work(self, name: str) -> Path:
        work = self.folder / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return work

    def run(self, work: Path, *command: str | Path) -> None:
        ended = subprocess.run([str(part) for part in command], cwd=work, capture_output=True, text=True)
        if ended.returncode != 0:
            raise AssertionError(f"{command[0]} in {work}:\n{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}")

    def generate(self, work: Path, kind: str, output: str, **options: str) -> None:
        properties = ",".join(f"{name}={value}" for name, value in options.items())
        arguments = ["generate", "-i", self.document, "-g", kind, "-o", output]
        arguments += ["--additional-properties", properties] if properties else []
        self.run(work, self.python / "openapi-generator-cli", *arguments)


def openapi_fetch(tools: Tools, url: str, to: str) -> None:
    work = tools.work("openapi_fetch")
    binaries = tools.folder / "node_modules/.bin"
    tools.run(work, binaries / "openapi-typescript", tools.document, "-o", "schema.d.ts")
    shutil.copy(CLIENTS / "openapi_fetch.ts", work)
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext"]
    tools.run(work, binaries / "tsc", *options, "openapi_fetch.ts")
    tools.run(work, "node", "openapi_fetch.js", url, to)


def typescript_fetch(tools: Tools, url: str, to: str) -> None:
    work = tools.work("typescript_fetch")
    tools.generate(work, "typescript-fetch", "generated")
    shutil.copy(CLIENTS / "typescript_fetch.ts", work)
    options = ["--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "commonjs", "--skipLibCheck"]
    tools.run(work, tools.folder / "node_modules/.bin/tsc", *options, "typescript_fetch.ts")
    tools.run(work, "node", "typescript_fetch.js", url, to)


def openapi_python_client(tools: Tools, url: str, to: str) -> None:
    work = tools.work("openapi_python_client")
    tools.run(work, tools.python / "openapi-python-client", "generate", "--path", tools.document, "--meta", "none",
              "--output-path", "ringmaster_client")
    shutil.copy(CLIENTS / "openapi_python_client.py", work / "program.py")
    tools.run(work, tools.python / "mypy", "--strict", "program.py")
    tools.run(work, tools.python / "python", "program.py", url, to)


def openapi_generator(tools: Tools, url: str, to: str) -> None:
    work = tools.work("openapi_generator")
    tools.generate(work, "python", "generated", packageName="ringmaster_generated")
    (work / "generated/ringmaster_generated").rename(work / "ringmaster_generated")
    shutil.copy(CLIENTS / "openapi_generator.py", work / "program.py")
    tools.run(work, tools.python / "python", "program.py", url, to)


def go(tools: Tools, url: str, to: str) -> None:
    work = tools.work("go")
    options = {"packageName": "api", "enumClassPrefix": "true", "useOneOfDiscriminatorLookup": "true", "withGoMod": "false"}
    tools.generate(work, "go", "api", **options)
    shutil.rmtree(work / "api/test", ignore_errors=True)
    (work / "go.mod").write_text("module ringmaster\n\ngo 1.19\n")
    shutil.copy(CLIENTS / "generated.go", work / "main.go")
    tools.run(work, "go", "build", "-o", "program", ".")
    tools.run(work, "./program", url, to)


ALL: dict[str, Callable[[Tools, str, str], None]] = {
    "openapi_fetch": openapi_fetch,
    "typescript_fetch": typescript_fetch,
    "openapi_python_client": openapi_python_client,
    "openapi_generator": openapi_generator,
    "go": go,
}


def main(folder: str, *names: str) -> int:
    tools, failed = Tools(folder), []
    with Cluster(3) as cluster:
        tools.document.write_text(json.dumps(cluster.call("GET", "/openapi.json")))
        upstream = {
            "policy": "consistent_hash",
            "hash_key": {"type": "header", "name": "x-user"},
            "health_check": {"type": "tcp"},
            "endpoints": [{"id": "e1", "addr": "127.0.0.1:9"}],
        }
        cluster.call("PUT", "/v1/upstreams/web", upstream)
        for name in names or ALL:
            leader = eventually("a leader", lambda: cluster.call("GET", "/v1/cluster")["leader"])
            try:
                ALL[name](tools, cluster.urls[0], str(leader % 3 + 1))
                print(f"{name}: all calls work")
            except AssertionError as error:
                failed.append(name)
                print(f"{name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
