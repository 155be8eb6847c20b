"""One end of a CURVE link by hand (ZeroMQ RFC 23, 26), for what a library would not send. Of it only what a client says is
here: what the server answers after the handshake is passed over.

Source: RFC 26; the cryptography is libsodium's, which libzmq brings.
"""
import ctypes
import os
import socket
import struct

SODIUM = ctypes.CDLL("libsodium.so.23")
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
MORE, LONG = 1, 2


def z85(text):
    out = b""
    for at in range(0, len(text), 5):
        value = 0
        for letter in text[at:at + 5]:
            value = value * 85 + Z85.index(letter)
        out += struct.pack(">I", value)
    return out


def key_file(path):
    """The public and the secret half."""
    with open(path, encoding="ascii") as file:
        rows = dict(line.split() for line in file if line.startswith(("public ", "secret ")))
    return z85(rows["public"]), z85(rows["secret"])


def key_pair():
    public, secret = (ctypes.create_string_buffer(32) for _ in range(2))
    SODIUM.crypto_box_keypair(public, secret)
    return public.raw, secret.raw


def box(data, nonce, public, secret):
    out = ctypes.create_string_buffer(len(data) + 16)
    SODIUM.crypto_box_easy(out, data, ctypes.c_ulonglong(len(data)), nonce, public, secret)
    return out.raw


def unbox(data, nonce, public, secret):
    out = ctypes.create_string_buffer(len(data) - 16)
    if SODIUM.crypto_box_open_easy(out, data, ctypes.c_ulonglong(len(data)), nonce, public, secret) != 0:
        raise OSError("the server's box does not open")
    return out.raw


def frame(body, flags=0):
    if len(body) > 255:
        return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body
    return bytes([flags, len(body)]) + body


def command(body):
    return frame(body, 4)


def hello(server, public, secret):
    nonce = struct.pack(">Q", 1)
    return command(b"\x05HELLO\x01\x00" + bytes(72) + public + nonce + box(bytes(64), b"CurveZMQHELLO---" + nonce, server, secret))


class Link:
    """A connection whose handshake is done."""

    def __init__(self, where, server, keys):
        self.socket = socket.create_connection(where, timeout=10)
        self.public, self.secret = key_pair()
        server, self.nonce = z85(server), 2
        self.socket.sendall(GREETING)
        self.exactly(64)
        self.socket.sendall(hello(server, self.public, self.secret))
        welcome = self.command(b"\x07WELCOME")
        opened = unbox(welcome[16:], b"WELCOME-" + welcome[:16], server, self.secret)
        self.peer, cookie = opened[:32], opened[32:]
        vouch = os.urandom(16)
        metadata = b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        inner = keys[0] + vouch + box(self.public + server, b"VOUCH---" + vouch, self.peer, keys[1]) + metadata
        nonce = struct.pack(">Q", self.nonce)
        self.socket.sendall(command(b"\x08INITIATE" + cookie + nonce + box(inner, b"CurveZMQINITIATE" + nonce, self.peer, self.secret)))
        self.command(b"\x05READY")

    def exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise OSError("the server hung up")
            data += part
        return data

    def command(self, name):
        flags, size = self.exactly(2)
        if flags & LONG:
            size = struct.unpack(">Q", bytes([size]) + self.exactly(7))[0]
        body = self.exactly(size)
        if not body.startswith(name):
            raise OSError("%r, where %r was due" % (body[:9], name))
        return body[len(name):]

    def message(self, data, more=False):
        """A frame of a message."""
        self.nonce += 1
        nonce = struct.pack(">Q", self.nonce)
        return frame(b"\x07MESSAGE" + nonce + box(bytes([MORE if more else 0]) + data, b"CurveZMQMESSAGEC" + nonce, self.peer, self.secret))
