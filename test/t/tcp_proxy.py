#!/usr/bin/python3
# tcp_proxy.py: stands between a relay and its broker and makes trouble.
#     tcp_proxy.py [HOST:PORT]     listens on a free port of the loopback and prints it
# A line on standard input says what it does from then on:
#     to HOST:PORT  where the broker is
#     pass          what it should
#     drop          swallows everything in both directions, as a network that is gone does
#     delay MS      holds everything back so long
#     half          ends what the broker sends of the connections that there are, and takes no more of it
#     cut           resets the connections that there are, and passes those that come
#     connected     waits until there is a connection, for 3 minutes
# Each is answered with the line "ok" when it is done.  It ends with its standard input.
import asyncio
import socket
import struct
import sys

mode, delay = "pass", 0.0
pairs = set()
connected = asyncio.Event()


async def pump(reader, writer, from_broker):
    try:
        while data := await reader.read(65536):
            while mode == "drop":
                await asyncio.sleep(0.05)
            if delay:
                await asyncio.sleep(delay)
            if not writer.is_closing():
                writer.write(data)
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, RuntimeError):
        pass
    if from_broker:
        writer.close()


async def serve(reader, writer):
    try:
        broker_reader, broker_writer = await asyncio.open_connection(*broker)
    except OSError:
        writer.close()
        return
    pair = (writer, broker_writer)
    pairs.add(pair)
    connected.set()
    await asyncio.gather(pump(reader, broker_writer, False), pump(broker_reader, writer, True))
    broker_writer.close()
    pairs.discard(pair)


def reset(writer):
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main():
    global mode, delay, broker
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        words = line.split()
        if words[0] == "to":
            broker = words[1].split(":")
        elif words[0] == "cut":
            mode, delay = "pass", 0.0
            for pair in list(pairs):
                for writer in pair:
                    reset(writer)
            pairs.clear()
        elif words[0] == "connected":
            try:
                while not pairs:
                    connected.clear()
                    await asyncio.wait_for(connected.wait(), 180)
            except asyncio.TimeoutError:
                print("nobody connects", flush=True)
                continue
        elif words[0] == "half":
            for to_relay, _ in list(pairs):
                to_relay.get_extra_info("socket").shutdown(socket.SHUT_WR)
        elif words[0] == "delay":
            mode, delay = "pass", int(words[1]) / 1000
        else:
            mode, delay = words[0], 0.0
        print("ok", flush=True)

broker = sys.argv[1].split(":") if len(sys.argv) > 1 else ("127.0.0.1", 0)
asyncio.run(main())
