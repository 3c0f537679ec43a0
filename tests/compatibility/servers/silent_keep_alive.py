"""Answers, and keeps the connection without saying so. Usage: silent_keep_alive.py PORT."""

import socket
import sys
import threading


def serve(connection):
    while connection.recv(1000):
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
