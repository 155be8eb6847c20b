"""PNG to pixels, as much as renderers write: 8 and 16 bits, every filter, no interlacing.

Two renders of one picture differ in their files' bytes, because a time stands in them.
"""
import struct
import zlib

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def paeth(a, b, c):
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def unfilter(kind, row, above, step):
    if kind == 1:
        for i in range(step, len(row)):
            row[i] = (row[i] + row[i - step]) & 255
    elif kind == 2:
        for i, up in enumerate(above):
            row[i] = (row[i] + up) & 255
    elif kind == 3:
        for i, up in enumerate(above):
            row[i] = (row[i] + ((row[i - step] if i >= step else 0) + up) // 2) & 255
    elif kind == 4:
        for i, up in enumerate(above):
            left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
            row[i] = (row[i] + paeth(left, up, corner)) & 255
    elif kind:
        raise ValueError("PNG: there is no filter %d" % kind)
    return row


def pixels(data):
    """(width, height, bits, colour type, palette, bytes of all rows)."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("no PNG")
    at, packed, head, palette = 8, b"", None, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if zlib.crc32(kind + body) != struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0]:
            raise ValueError("PNG: a damaged %s" % kind)
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        elif kind == b"PLTE":
            palette = body
        elif kind == b"IDAT":
            packed += body
        at += 12 + size
    width, height, bits, colour, _, _, interlaced = head
    if interlaced:
        raise ValueError("PNG: interlaced")
    raw = zlib.decompress(packed)
    step = max(1, CHANNELS[colour] * bits // 8)
    length = (width * CHANNELS[colour] * bits + 7) // 8
    above, rows = bytes(length), []
    for y in range(height):
        start = y * (length + 1)
        above = unfilter(raw[start], bytearray(raw[start + 1:start + 1 + length]), above, step)
        rows.append(bytes(above))
    return width, height, bits, colour, palette, b"".join(rows)
