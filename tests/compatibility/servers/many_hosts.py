"""Many endpoints in one process, at one port of several addresses. Each answers with its address, and after `?ms=`
milliseconds. Usage: many_hosts.py PORT ADDRESS..."""

import asyncio
import sys


def server_of(host):
    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                if "ms=" in path:
                    await asyncio.sleep(int(path.split("ms=")[1]) / 1000)
                body = host.encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    return serve


async def main():
    servers = [await asyncio.start_server(server_of(host), host, int(sys.argv[1])) for host in sys.argv[2:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
