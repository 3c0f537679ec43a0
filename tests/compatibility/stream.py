"""WebSocket clients with their default limits follow a large cluster through the death of a node.

Usage: stream.py [UPSTREAMS [ENDPOINTS [SETTINGS]]], by default the most that a cluster holds: 256 upstreams of 256
endpoints, and 1,000 settings. Each client folds nothing: it puts the parts of the view together, checks that `prev`
names the message before, and compares the result with `GET /v1/state?at=`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from cluster import Cluster

MAX_MESSAGE = 512 << 10
# How many upstreams come in one request.
IMPORTED = 64
LISTS = ("nodes", "settings", "operations", "upstreams", "routes")


OpenStream = Callable[[str], AsyncIterator[str]]


class Reader:
    """The view and the position that a stream has transferred.

    Events in several parts name the revision of the message before, which for the second part is their own.
    """

    def __init__(self) -> None:
        self.view: dict[str, Any] = {}
        self.missing = 0
        self.revision = 0
        self.settings: dict[str, Any] = {}
        self.messages = 0
        self.largest = 0

    def query(self) -> str:
        if not self.revision:
            return ""
        return f"?after={self.revision}&incarnation={self.view['incarnation']}&cluster={self.view['id']}"

    def take(self, text: str) -> None:
        self.messages += 1
        self.largest = max(self.largest, len(text.encode()))
        assert self.largest <= MAX_MESSAGE, f"a message of {self.largest} bytes"
        message = json.loads(text)
        kind = message["type"]
        if kind == "view":
            self.view, self.missing = message, message.pop("parts", 0)
            for key in ("type", "format", "node"):
                message.pop(key)
        elif kind == "view_part":
            assert message["revision"] == self.view["revision"]
            for name in LISTS:
                self.view[name].extend(message.get(name, []))
            for further in message.get("endpoints", []):
                upstream = next(each for each in self.view["upstreams"] if each["name"] == further["upstream"])
                upstream["endpoints"].extend(further["items"])
            self.missing -= 1
        elif kind == "events":
            assert self.missing == 0
            before = message["revision"] if message.get("part", 0) > 1 else self.revision
            assert message["prev"] == before, f"a gap before {message['revision']}"
            if message.get("part", 0) == message.get("parts", 0):
                self.revision = message["revision"]
            for event in message["events"]:
                if event["type"] == "setting_changed":
                    self.settings[event["setting"]["key"]] = event["setting"]["value"]
        elif kind == "resumed":
            assert (message["incarnation"], message["cluster"]) == (self.view["incarnation"], self.view["id"])
        if kind in ("view", "view_part") and self.missing == 0:
            self.revision = self.view["revision"]


async def by_websockets(url: str) -> AsyncIterator[str]:
    import websockets

    async with websockets.connect(url) as socket:
        async for message in socket:
            assert isinstance(message, str)
            yield message


async def by_aiohttp(url: str) -> AsyncIterator[str]:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        async for message in socket:
            assert message.type == aiohttp.WSMsgType.TEXT, message
            yield message.data


async def follow(
    open_stream: OpenStream, url: str, reader: Reader, until: Callable[[Reader], bool]
) -> None:
    stream = open_stream(f"{url.replace('http', 'ws')}/v1/stream{reader.query()}")
    async for text in stream:
        reader.take(text)
        if reader.missing == 0 and until(reader):
            return
    raise ConnectionError("the stream ended")


async def check(name: str, open_stream: OpenStream, cluster: Cluster) -> None:
    reader, began = Reader(), time.monotonic()
    await follow(open_stream, cluster.urls[0], reader, lambda reader: reader.revision > 0)
    took = time.monotonic() - began
    shown = cluster.call("GET", f"/v1/state?at={reader.revision}", node=2)
    assert reader.view == shown, f"{name}: the parts do not make up the view"
    print(f"{name}: {reader.messages} messages, the largest of {reader.largest} bytes, in {took:.1f} s")

    def write(value: str, node: int) -> None:
        cluster.write("PUT", "/v1/settings/mark", {"value": value}, node)

    await asyncio.to_thread(write, f"{name}, before", 2)
    await follow(open_stream, cluster.urls[0], reader, lambda reader: reader.settings.get("mark") == f"{name}, before")


async def through_death(clients: dict[str, OpenStream], cluster: Cluster) -> None:
    """All clients follow the node that dies, and continue at another one."""
    readers = {name: Reader() for name in clients}
    for name, client in clients.items():
        reader = readers[name]
        await follow(client, cluster.urls[0], reader, lambda reader: reader.revision > 0)
    lost = [
        asyncio.create_task(follow(client, cluster.urls[0], readers[name], lambda _: False))
        for name, client in clients.items()
    ]
    await asyncio.sleep(0.5)
    await asyncio.to_thread(cluster.kill, 1)
    await asyncio.wait_for(asyncio.gather(*lost, return_exceptions=True), 30)
    await asyncio.to_thread(cluster.write, "PUT", "/v1/settings/mark", {"value": "after"}, 2)
    for name, client in clients.items():
        reader = readers[name]
        before = reader.messages
        await follow(client, cluster.urls[2], reader, lambda reader: reader.settings.get("mark") == "after")
        print(f"{name}: resumed at another node with {reader.messages - before} messages")


def fill(cluster: Cluster, upstreams: int, endpoints: int, settings: int) -> None:
    check = {"type": "tcp", "interval_ms": 3_600_000}
    listed = [{"id": f"e{n}", "addr": f"127.0.0.1:{20_000 + n}"} for n in range(endpoints)]
    names = [f"u{number:03}" for number in range(upstreams)]
    for first in range(0, upstreams, IMPORTED):
        spec = {"health_check": check, "endpoints": listed}
        some = [{"name": name, "spec": spec} for name in names[first : first + IMPORTED]]
        cluster.write("POST", "/v1/traffic/import", {"upstreams": some})
    for number in range(settings):
        cluster.write("PUT", f"/v1/settings/large-{number}", {"value": "v" * 4_000})


def main(upstreams: str = "256", endpoints: str = "256", settings: str = "1000") -> None:
    clients: dict[str, OpenStream] = {"websockets": by_websockets, "aiohttp": by_aiohttp}
    available = {name: client for name, client in clients.items() if installed(name)}
    assert available, "neither websockets nor aiohttp is installed"
    with Cluster(3) as cluster:
        fill(cluster, int(upstreams), int(endpoints), int(settings))
        for name, client in available.items():
            asyncio.run(check(name, client, cluster))
        asyncio.run(through_death(available, cluster))


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    main(*sys.argv[1:])
