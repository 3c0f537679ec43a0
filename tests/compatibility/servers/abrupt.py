"""Answers 413 to the head of a request, and closes at once. Usage: abrupt.py PORT."""

import socket
import sys
from contextlib import suppress

server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    connection.recv(1000)
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    connection.close()
