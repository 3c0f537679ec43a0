"""A client of HTTP/1 that sends what it is given, byte for byte."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Wire:
    def __init__(self, host: str, port: int, timeout: float = 10) -> None:
        self.socket = socket.create_connection((host, port), timeout)
        self.left = b""

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def ask(self, method: str, path: str, host: str | None, *headers: str) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *headers]
        self.send("\r\n".join(lines) + "\r\n\r\n")
        return self.answer(method == "HEAD")

    def answer(self, is_head: bool = False) -> Answer:
        while b"\r\n\r\n" not in self.left:
            self._more()
        head, self.left = self.left.split(b"\r\n\r\n", 1)
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields if ": " in field)}
        length = 0 if is_head else int(headers.get("content-length", 0))
        while len(self.left) < length:
            self._more()
        body, self.left = self.left[:length], self.left[length:]
        return Answer(int(line.split(" ")[1]), headers, body)

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the connection ended after {self.left!r}")
        self.left += data

    def ends_within(self, seconds: float) -> bool:
        """Whether the other side closes the connection."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
