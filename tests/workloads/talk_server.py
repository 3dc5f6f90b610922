"""A real WebSocket server, a process of its own: `python talk_server.py [CERTIFICATE KEY]`.

Echoes messages and does what some of them say. It prints its port, and ends with its input.
"""

from __future__ import annotations

import asyncio
import http
import logging
import ssl
import sys

from websockets.asyncio.server import serve


async def talk(socket) -> None:
    async for message in socket:
        word, _, rest = message.partition(" ") if isinstance(message, str) else ("", "", "")
        await getattr(Talk, word, Talk.echo)(socket, message, rest)


class Talk:
    async def echo(socket, message, rest):
        await socket.send(message)

    async def close(socket, message, rest):
        await socket.close(int(rest), "as it was told to")

    async def drop(socket, message, rest):
        socket.transport.abort()

    async def nonsense(socket, message, rest):
        socket.transport.write(b"\xff\xff\xff\xff")

    async def wait(socket, message, rest):
        await asyncio.sleep(float(rest))
        await socket.send(message)

    async def pieces(socket, message, rest):
        await socket.send(message[i : i + 3] for i in range(0, len(message), 3))

    async def push(socket, message, rest):
        for number in range(int(rest)):
            await socket.send(f"news {number}")
        await socket.send(message)

    async def ping(socket, message, rest):
        await (await socket.ping())
        await socket.send("pinged")

    async def subprotocol(socket, message, rest):
        await socket.send(str(socket.subprotocol))

    async def header(socket, message, rest):
        await socket.send(socket.request.headers["X-Tenant"])


def refuse(connection, request):
    if request.path == "/forbidden":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")
    return None


async def main() -> None:
    logging.disable()
    tls = None
    if len(sys.argv) > 1:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*sys.argv[1:3])
    server = await serve(
        talk,
        "127.0.0.1",
        0,
        ssl=tls,
        process_request=refuse,
        select_subprotocol=lambda _, asked: asked[0] if asked else None,
        max_size=None,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main())
