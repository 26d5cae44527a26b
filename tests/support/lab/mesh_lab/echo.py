"""Answers each line with the client's address and the line: `echo.py PORT...`, TCP on both
families and UDP on IPv4 and IPv6, standard library only."""

import asyncio
import socket
import sys

LINE_BYTES_MAX = 1 << 20


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(f"{address[0]} {address[1]} ".encode() + data, address)


async def lines(reader, writer):
    host, port = writer.get_extra_info("peername")[:2]
    try:
        while line := await reader.readline():
            writer.write(f"{host} {port} ".encode() + line)
            await writer.drain()
    except (OSError, ValueError):
        pass
    writer.close()


async def main():
    ports = [int(word) for word in sys.argv[1:]]
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_datagram_endpoint(Datagrams, local_addr=("::", port))
        sock = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        await asyncio.start_server(lines, sock=sock, limit=LINE_BYTES_MAX)
    await asyncio.Event().wait()


asyncio.run(main())
