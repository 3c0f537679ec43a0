"""A network that takes a while: passes on each byte, and the end, after a delay each way.

Usage: relay.py PORT TO_PORT SECONDS.
"""

import asyncio
import sys
from contextlib import suppress

DELAY = float(sys.argv[3])


async def pump(reader, writer):
    """Passes on what it reads, in order, DELAY after it was read."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()

    async def write():
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if data is None:
                writer.transport.abort()
                return
            if not data:
                writer.write_eof()
                return
            writer.write(data)

    writing = asyncio.create_task(write())
    try:
        while data := await reader.read(65536):
            queue.put_nowait((loop.time() + DELAY, data))
        queue.put_nowait((loop.time() + DELAY, b""))
    except OSError:
        queue.put_nowait((loop.time() + DELAY, None))
    with suppress(OSError):
        await writing


async def serve(reader, writer):
    try:
        endpoint = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    except OSError:
        writer.transport.abort()
        return
    await asyncio.gather(pump(reader, endpoint[1]), pump(endpoint[0], writer))
    writer.close()
    endpoint[1].close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
