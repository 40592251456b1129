"""uvloop makes its sockets in native code."""

from __future__ import annotations

from tests.company import need
from tests.support import run_python

need("uvloop")

CODE = """
import asyncio, logging, os, socket
import tmpguard, uvloop
logging.disable()

async def serve(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

async def main():
    with tmpguard.invocation(bundle=None) as invocation:
        for _ in range(2):  # the second time, the first one's socket is there
            server = await asyncio.start_unix_server(serve, "/tmp/socket")
            reader, writer = await asyncio.open_unix_connection("/tmp/socket")
            print(writer.get_extra_info("peername"), server.sockets[0].getsockname(), os.listdir("/tmp"))
            writer.write(b"text\\n")
            print(await reader.readline())
            writer.close()
            server.close()
            await server.wait_closed()
        for call in (
            asyncio.start_unix_server(serve, "/etc/socket"),
            asyncio.start_unix_server(serve, "/tmp/no/socket"),
            asyncio.open_unix_connection("/tmp/none"),
        ):
            try:
                await call
            except OSError as exc:
                print(type(exc).__name__, exc.errno)
        sock = socket.socketpair()[0]
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        writer.close()
    print([one.path for one in invocation.report.violations], os.path.exists("/tmp/socket"))

uvloop.run(main())
"""


def test_local_sockets_are_the_request_s() -> None:
    assert run_python(CODE).splitlines() == [
        *("/tmp/socket /tmp/socket ['socket']", "b'text\\n'") * 2,
        "OSError 30",
        "FileNotFoundError 2",
        "FileNotFoundError 2",
        "['/etc/socket'] False",
    ]
