"""Digests that the tests of this crate expect, from Python's hashlib alone. Usage: python3 golden.py"""

import hashlib

CHUNK = 4 << 20


def content(length):
    return bytes((i * 2654435761 % 2**32) >> 24 for i in range(length))


def digest(data):
    if len(data) <= CHUNK:
        return hashlib.sha256(data).hexdigest()
    outer = hashlib.new("sha512_256")
    outer.update(b"harness chunks 1\n" + len(data).to_bytes(8, "big"))
    for start in range(0, len(data), CHUNK):
        outer.update(hashlib.sha256(data[start : start + CHUNK]).digest())
    return outer.hexdigest()


for length in [CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 12345]:
    print(length, digest(content(length)))
