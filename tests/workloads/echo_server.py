"""A real gRPC server, a process of its own: `python echo_server.py CODE_FOLDER [CERTIFICATE KEY]`.

It prints its port, offers reflection, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, sys.argv[1])
import echo_pb2
import echo_pb2_grpc


class Echo(echo_pb2_grpc.EchoServicer):
    async def Say(self, word, context):
        await behave(word, context)
        return word

    async def Gather(self, words, context):
        count, texts = 0, []
        async for word in words:
            count += 1
            texts.append(word.text)
        return echo_pb2.Word(count=count, text=" ".join(texts))

    async def Scatter(self, word, context):
        for number in range(word.count):
            await asyncio.sleep(word.wait.ToTimedelta().total_seconds())
            yield echo_pb2.Word(text=word.text, count=number, data=word.data)
        await behave(echo_pb2.Word(fail=word.fail), context)

    async def Chat(self, words, context):
        async for word in words:
            if word.text == "bye":
                return
            await behave(word, context)
            yield word


async def behave(word, context) -> None:
    if word.text == "metadata":
        word.text = ",".join(f"{k}={v}" for k, v in context.invocation_metadata() if k[:2] == "x-")
    if word.fail == "die":
        os._exit(1)
    if word.fail:
        await context.abort(grpc.StatusCode[word.fail], "as it was told to")
    await asyncio.sleep(word.wait.ToTimedelta().total_seconds())


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
    name = echo_pb2.DESCRIPTOR.services_by_name["Echo"].full_name
    reflection.enable_server_reflection([name, reflection.SERVICE_NAME], server)
    if len(sys.argv) > 2:
        certificate, key = (Path(path).read_bytes() for path in sys.argv[2:4])
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


asyncio.run(main())
