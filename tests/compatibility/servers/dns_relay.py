"""Passes DNS questions over UDP on to another port. Usage: dns_relay.py ADDRESS TO_PORT.

It listens at port 53, the only one that a C library asks."""

import socket
import sys
from contextlib import suppress

address, port = sys.argv[1], int(sys.argv[2])
clients = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
clients.bind((address, 53))
while True:
    question, client = clients.recvfrom(4096)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(2)
        server.sendto(question, ("127.0.0.1", port))
        with suppress(TimeoutError):
            clients.sendto(server.recv(4096), client)
