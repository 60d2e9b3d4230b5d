"""An SFTP server that means ill: sftp.py HOW LOG.

Every path that it is asked about goes to LOG, a line of hexadecimal each.
"""

import random
import struct
import sys

HOW, LOG = sys.argv[1], open(sys.argv[2], "a")
IN, OUT = sys.stdin.buffer, sys.stdout.buffer

INIT, OPEN, CLOSE, READ, LSTAT, FSTAT, OPENDIR, READDIR, REALPATH, STAT, READLINK = (
    1, 3, 4, 5, 7, 8, 11, 12, 16, 17, 19)
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
OK, EOF, NO_SUCH_FILE, FAILURE = 0, 1, 2, 4

ESCAPES = b"\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\x08\x00\xe2\x80\xae"
# What would be somebody else's, if it were believed.
NAMES = [b"..", b".", b"", b"../../victim", b"/victim", b"run.0123456789abcdef/../../victim", b"a\0b",
         b"fenced.0123456789abcdef.1", b"run.0123456789abcdef", ESCAPES, b"n" * 255,
         b"alice-disk:1", b"alice-disk:99999999999999999999", b"disk.txt", b"manifest"]


def string(data):
    return struct.pack(">I", len(data)) + data


def send(kind, body):
    OUT.write(struct.pack(">IB", len(body) + 1, kind) + body)
    OUT.flush()


def attributes(directory):
    mode = 0o040700 if directory else 0o100600
    size = 4096 if directory else 2**64 - 1
    return struct.pack(">IQIIIII", 0x0F, size, 0, 0, mode, 0xFFFFFFFF, 0)


def names(entries):
    return struct.pack(">I", len(entries)) + b"".join(
        string(name) + string(ESCAPES) + attributes(False) for name in entries)


def status(ident, code, message=b"no"):
    send(STATUS, ident + struct.pack(">I", code) + string(message) + string(b""))


def answer(kind, ident, body):
    path = body[4:4 + struct.unpack(">I", body[:4])[0]] if len(body) >= 4 else b""
    if kind in (OPEN, LSTAT, OPENDIR, REALPATH, STAT, READLINK, 13, 14, 15, 18):
        LOG.write("%d %s\n" % (kind, path.hex()))
        LOG.flush()
    if HOW == "huge":
        OUT.write(b"\xff\xff\xff\xff" + bytes([DATA]) + ident)
        while True:
            OUT.write(b"\0" * 65536)
    if HOW == "large":
        # Within what a length field may say, and far beyond what was asked for.
        OUT.write(struct.pack(">IB", 1 << 30, DATA) + ident)
        while True:
            OUT.write(b"\0" * 65536)
    source = random.Random(int.from_bytes(ident, "big") * 31 + int((sys.argv + ["0"])[3]))
    # Not at once, so that it meets whatever is asked.
    if HOW == "garbage" and source.randrange(8) == 0:
        reply = bytes([source.choice([STATUS, HANDLE, DATA, NAME, ATTRS, 201])]) + ident
        reply += bytes(source.randrange(256) for _ in range(source.randrange(200)))
        OUT.write(struct.pack(">I", len(reply)) + reply)
        return OUT.flush()
    if HOW == "messages":
        return status(ident, FAILURE, ESCAPES * 10000)
    if HOW == "paths" and kind == REALPATH:
        return send(NAME, ident + struct.pack(">I", 1) + string(b"/" + ESCAPES * 10) + string(b"") +
                    struct.pack(">I", 0))
    if HOW == "links" and kind == LSTAT:
        return send(ATTRS, ident + struct.pack(">II", 4, 0o120777))
    if HOW == "links" and kind == READLINK:
        return send(NAME, ident + names([path + b"/.." + ESCAPES.replace(b"\0", b"")]))
    if kind == REALPATH:
        return send(NAME, ident + struct.pack(">I", 1) + string(b"/home") + string(b"") + struct.pack(">I", 0))
    if kind in (LSTAT, STAT):
        if path.endswith(b"disk.img") or (HOW != "files" and path.endswith(b":lock")):
            return status(ident, NO_SUCH_FILE)
        return send(ATTRS, ident + attributes(not path.endswith(b":lock")))
    if kind == FSTAT:
        return send(ATTRS, ident + attributes(False))
    if kind in (OPEN, OPENDIR):
        return send(HANDLE, ident + string(b"handle"))
    if kind == READ:
        # However much is asked for, and never an end.
        length = struct.unpack(">I", body[-4:])[0]
        return send(DATA, ident + string((ESCAPES * (length // len(ESCAPES) + 1))[:length]))
    if kind == READDIR:
        answer.turn = getattr(answer, "turn", 0) + 1
        if HOW == "listing":
            return send(NAME, ident + names([b"name %d" % (answer.turn * 100 + n) for n in range(100)]))
        if answer.turn % 2:
            return send(NAME, ident + names(NAMES + [b"n" * 4000] * (HOW == "long")))
        return status(ident, EOF)
    return status(ident, OK)


if HOW == "greeting":
    while True:
        OUT.write(ESCAPES * 1000)
if HOW == "extensions":
    IN.read(9)
    send(2, struct.pack(">I", 3) + b"".join(string(ESCAPES * 100) + string(b"9") for _ in range(200)))
    sys.exit()

while True:
    head = IN.read(5)
    if len(head) < 5:
        break
    length, kind = struct.unpack(">IB", head)
    body = IN.read(length - 1)
    if kind == INIT:
        send(2, struct.pack(">I", 3) + b"".join(
            string(name) + string(b"1")
            for name in [b"posix-rename@openssh.com", b"hardlink@openssh.com", b"fsync@openssh.com"]))
    else:
        answer(kind, body[:4], body[4:])
