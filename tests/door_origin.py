"""The internet of the door's tests: a DNS server, HTTPS, plain HTTP with a path for every oddity, and raw TCP.

Runs in its own network namespace: door_origin.py DIR, with origin.pem and origin.key in DIR. Prints "ready"."""

import asyncio
import base64
import hashlib
import re
import ssl
import sys

import dns.message
import dns.rcode
import dns.rrset

ORIGIN = "45.76.10.2"
NAMES = {
    "rebind-loop.example.com.": [("A", "127.0.0.1")],
    "rebind-meta.example.com.": [("A", "169.254.169.254")],
    "rebind-mapped.example.com.": [("AAAA", "::ffff:10.0.0.1")],
    "rebind-host.example.com.": [("A", "45.76.10.1")],
    "never.example.com.": [("A", "45.76.10.3")],
    "wire.example.com.": [("A", "168.63.129.16")],
    "mixed.example.com.": [("A", "10.0.0.5"), ("A", ORIGIN)],
    "covered.example.com.": [("A", "10.9.0.1")],
    "private.example.com.": [("A", "10.9.0.1")],
    "private-not-allowed.example.com.": [("A", "10.10.0.1")],
    "closed.example.com.": [("A", ORIGIN)],
}


class Dns(asyncio.DatagramProtocol):
    asked = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        Dns.asked += 1
        q = dns.message.from_wire(data)
        r = dns.message.make_response(q)
        question = q.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        if name.startswith("silent."):
            return
        if name.startswith("nxdomain."):
            r.set_rcode(dns.rcode.NXDOMAIN)
        else:
            for t, value in NAMES.get(name, [("A", ORIGIN)]):
                if t == kind:
                    r.answer.append(dns.rrset.from_text(question.name, 5, "IN", t, value))
        self.transport.sendto(r.to_wire(), address)


STATE = {"connections": 0, "seen": []}


async def read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    headers = [(k, v.strip()) for k, _, v in (line.partition(b":") for line in lines)]
    return first, headers


def header(headers, name):
    return next((v for k, v in headers if k.lower() == name.lower()), None)


async def read_chunks(reader, sink):
    trailers = []
    while True:
        line = await reader.readuntil(b"\r\n")
        n = int(line.split(b";")[0], 16)
        if n == 0:
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                trailers.append(line.strip())
            return trailers
        sink(await reader.readexactly(n))
        await reader.readexactly(2)


async def read_body(reader, writer, headers, sink):
    if header(headers, b"Expect") == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if (header(headers, b"Transfer-Encoding") or b"").lower() == b"chunked":
        return await read_chunks(reader, sink)
    left = int(header(headers, b"Content-Length") or 0)
    while left:
        data = await reader.read(min(left, 65536))
        if not data:
            raise asyncio.IncompleteReadError(b"", left)
        sink(data)
        left -= len(data)
    return []


def plain(body, status=b"200 OK", extra=b""):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), extra, body)


async def odd_path(path, method, first, headers, reader, writer):
    """Paths that answer before the body is read, or not like HTTP. True: handled, False: closed."""
    if path == b"/early":
        writer.write(plain(b"early\n", b"413 Content Too Large", b"Connection: close\r\n"))
        await writer.drain()
        return False
    if path == b"/stream":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(5):
            event = b"data: %d\n\n" % i
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.3)
        writer.write(b"0\r\nX-Trailer: end\r\n\r\n")
        return True
    if path == b"/forever":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)
    if path == b"/hang":
        await asyncio.sleep(60)
        return False
    if path == b"/close":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        return False
    if path == b"/short":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        return False
    if path == b"/nothing":
        return False
    if path == b"/smuggle":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        return True
    if path == b"/unasked":
        writer.write(plain(b"one") + plain(b"two"))
        return True
    if path == b"/hints":
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + plain(b"final\n"))
        return True
    if path == b"/ws":
        key = header(headers, b"Sec-WebSocket-Key") or b""
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\nhello")
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        return False
    return None


async def answer(path, method, first, headers, reader, writer):
    digest, total = hashlib.sha256(), 0

    def sink(data):
        nonlocal total
        digest.update(data)
        total += len(data)

    trailers = await read_body(reader, writer, headers, sink)
    if path == b"/upload":
        body = b"%d %s %s\n" % (total, digest.hexdigest().encode(), b",".join(trailers))
    elif path == b"/head":
        body = first + b"\n" + b"".join(k + b": " + v + b"\n" for k, v in headers)
    elif path == b"/connections":
        body = b"%d\n" % STATE["connections"]
    elif path == b"/seen":
        body = b"\n".join(STATE["seen"]) + b"\n"
    elif path == b"/dns":
        body = b"%d\n" % Dns.asked
    elif m := re.fullmatch(rb"/bytes/(\d+)", path):
        body = b"b" * int(m[1])
    else:
        body = b"hello from the origin\n"
    if path == b"/204":
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    elif path == b"/304":
        writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
    elif path == b"/bye":
        writer.write(plain(body, extra=b"Connection: close\r\n"))
        return False
    elif path == b"/bye-silently":
        writer.write(plain(body))
        return False
    elif method == b"HEAD":
        writer.write(plain(body)[: -len(body)])
    else:
        writer.write(plain(body))
    return header(headers, b"Connection") != b"close"


async def http(reader, writer):
    STATE["connections"] += 1
    try:
        while True:
            first, headers = await read_request(reader)
            method, target, _ = first.split(b" ")
            path = target.partition(b"?")[0]
            if path not in (b"/seen", b"/dns"):
                STATE["seen"].append(first)
            keep = await odd_path(path, method, first, headers, reader, writer)
            if keep is None:
                keep = await answer(path, method, first, headers, reader, writer)
            await writer.drain()
            if not keep:
                break
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def echo(reader, writer):
    """Server first; then what comes goes back, and the end is answered by a last line."""
    try:
        writer.write(b"220 ready\r\n")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"221 bye\r\n")
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main(directory):
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/origin.pem", f"{directory}/origin.key")
    await loop.create_datagram_endpoint(Dns, local_addr=(ORIGIN, 53))
    for port in (80, 8080):
        await asyncio.start_server(http, "0.0.0.0", port)
    await asyncio.start_server(http, "0.0.0.0", 443, ssl=context)
    await asyncio.start_server(http, "0.0.0.0", 8443, ssl=context)
    await asyncio.start_server(echo, "0.0.0.0", 2525)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
