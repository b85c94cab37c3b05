#!/usr/bin/env python3
"""Computes the id of a file or tree as docs/FORMAT.md says, without any code of shoal.

It is a second publisher: where the two differ, that page or one of them is wrong. It needs `pip
install blake3`, and takes about a second for 300 KB: that package has no hashes of subtrees, so
those of pieces are computed in plain Python, and checked against it.
"""

import argparse
import os
import stat
from types import SimpleNamespace

from blake3 import blake3

KIB = 1024
MIB = 1024 * KIB

# ---- Encoding: protobuf, fields in order, without default values ----


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def put_number(tag, number):
    return varint(tag << 3) + varint(number) if number else b""


def put_element(tag, data):
    return varint(tag << 3 | 2) + varint(len(data)) + data


def put_bytes(tag, data):
    return put_element(tag, data) if data else b""


# ---- BLAKE3 of subtrees ----

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
COLUMNS_AND_DIAGONALS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
WORD = 0xFFFFFFFF


def rotate(word, bits):
    return (word >> bits | word << 32 - bits) & WORD


def compress(value, block, counter, flags):
    """The chaining value after one block of at most 64 bytes."""
    words = [int.from_bytes(block.ljust(64, b"\0")[at:at + 4], "little") for at in range(0, 64, 4)]
    v = [*value, *IV[:4], counter & WORD, counter >> 32, len(block), flags]
    for _ in range(7):
        for number, (a, b, c, d) in enumerate(COLUMNS_AND_DIAGONALS):
            for word, first, second in ((words[2 * number], 16, 12), (words[2 * number + 1], 8, 7)):
                v[a] = v[a] + v[b] + word & WORD
                v[d] = rotate(v[d] ^ v[a], first)
                v[c] = v[c] + v[d] & WORD
                v[b] = rotate(v[b] ^ v[c], second)
        words = [words[at] for at in PERMUTATION]
    return tuple(v[at] ^ v[at + 8] for at in range(8))


def to_bytes(words):
    return b"".join(word.to_bytes(4, "little") for word in words)


def join(left, right, flags=0):
    return to_bytes(compress(IV, left + right, 0, PARENT | flags))


def left_part(length, unit):
    """Bytes or pieces of the left subtree: the most units that are a power of two, but not all."""
    return unit << ((length - 1) // unit).bit_length() - 1


def subtree(data, chunk):
    """The chaining value of bytes that start at this chunk of their blob."""
    if len(data) > KIB:
        left = left_part(len(data), KIB)
        return join(subtree(data[:left], chunk), subtree(data[left:], chunk + left // KIB))
    value = IV
    for at in range(0, len(data), 64):
        start = CHUNK_START if at == 0 else 0
        end = CHUNK_END if at + 64 >= len(data) else 0
        value = compress(value, data[at:at + 64], chunk, start | end)
    return to_bytes(value)


def merge(hashes, flags=0):
    """The hash of consecutive pieces."""
    if len(hashes) == 1:
        return hashes[0]
    left = left_part(len(hashes), 1)
    return join(merge(hashes[:left]), merge(hashes[left:]), flags)


# ---- The files, directories and links ----


def stays_inside(target, directories):
    """Whether a link's target stays in the content, with this many directories above the link."""
    names = [name for name in target.split(b"/") if name not in (b"", b".")]
    ups = 0
    while names[ups:ups + 1] == [b".."]:
        ups += 1
    return target[:1] != b"/" and ups < directories and b".." not in names[ups:]


def scan(path, name, links, entries, directories):
    """Adds what is at `path`, and everything below it; `directories` tells, of each directory above
    it, whether a link led to it."""
    depth = len(directories)
    found = os.lstat(path)
    if depth and stat.S_ISLNK(found.st_mode):
        # Above a directory that a link led to, there is something else on disk than in the content.
        inside = directories[::-1].index(True) + 1 if True in directories else depth
        target = os.readlink(path)
        if stays_inside(target, inside):
            entries.append(SimpleNamespace(depth=depth, name=name, target=target, found=found))
            return
        if links == "skip":
            return
    is_linked = depth > 0 and stat.S_ISLNK(found.st_mode)
    found = os.stat(path)
    entry = SimpleNamespace(depth=depth, name=name, target=b"", found=found, data=None)
    entries.append(entry)
    if stat.S_ISDIR(found.st_mode):
        for child in sorted(os.listdir(path)):
            scan(path + b"/" + child, child, links, entries, [*directories, is_linked])
    else:
        with open(path, "rb") as file:
            entry.data = file.read()


# ---- Blobs, manifest, descriptor ----


def piece_length_of(total):
    pieces, length, longest = (512, 64 * KIB, 256 * KIB) if total < 64 * MIB else (8192, 256 * KIB, 16 * MIB)
    while length < longest and pieces * length < total:
        length *= 2
    return length


def assign(files, piece_length):
    """Returns the blobs, and sets the blob and offset of each file."""
    distinct = {file.root: file for file in reversed(files) if file.data}
    short = [file for file in files if distinct.get(file.root) is file and len(file.data) < piece_length]
    pack = b"".join(file.data for file in short) if len(short) > 1 else None
    blobs, filled, pack_number = [], 0, 0
    for file in files:
        first = distinct.get(file.root)
        if first is not file:
            file.blob, file.offset = (first.blob, first.offset) if first else (0, 0)
        elif pack is not None and len(file.data) < piece_length:
            if not pack_number:
                blobs.append(pack)
                pack_number = len(blobs)
            file.blob, file.offset = pack_number, filled
            filled += len(file.data)
        else:
            blobs.append(file.data)
            file.blob, file.offset = len(blobs), 0
    return blobs


def encode_blob(data, piece_length):
    """The message, and the number of bytes in holes."""
    pieces = [data[at:at + piece_length] for at in range(0, len(data), piece_length)]
    root, hashes = blake3(data).digest(), b""
    if len(pieces) > 1:
        chunks = piece_length // KIB
        values = [subtree(piece, number * chunks) for number, piece in enumerate(pieces)]
        assert merge(values, ROOT) == root, "the hashes of pieces are wrong"
        hashes = b"".join(values)
    holes, hole_bytes = [], 0
    for number, piece in enumerate(pieces):
        if not any(piece):
            hole_bytes += len(piece)
            if holes and sum(holes[-2:]) == number:
                holes[-1] += 1
            else:
                holes += [number, 1]
    holes = b"".join(map(varint, holes))
    message = put_number(1, len(data)) + put_bytes(2, root) + put_bytes(3, hashes) + put_bytes(4, holes)
    return message, hole_bytes


def encode_entry(entry, blobs, preserve):
    mode = entry.found.st_mode
    is_file = not entry.target and entry.data is not None
    out = put_number(1, entry.depth) + put_bytes(2, entry.name)
    if not entry.target and entry.data is None:
        out += put_number(3, 1)
    if is_file and entry.data:
        out += put_number(4, entry.blob)
        if len(entry.data) != len(blobs[entry.blob - 1]):
            out += put_number(5, entry.offset) + put_number(6, len(entry.data)) + put_bytes(7, entry.root)
    out += put_bytes(8, entry.target)
    out += put_number(9, int(is_file and mode & 0o111 != 0))
    out += put_number(10, int(not entry.target and mode & 0o007 == 0))
    if preserve and not entry.target:
        modified = entry.found.st_mtime_ns
        out += put_number(11, stat.S_IMODE(mode) | 0o10000) + put_number(12, modified << 1 ^ modified >> 63)
    return out


def describe(path, name=None, piece_length=None, links="follow", preserve=False):
    """The encoded descriptor and manifest."""
    path = os.path.abspath(os.fsencode(path))
    entries = []
    scan(path, b"", links, entries, [])
    files = [entry for entry in entries if not entry.target and entry.data is not None]
    for file in files:
        file.root = blake3(file.data).digest()
    piece_length = piece_length or piece_length_of(sum(len(file.data) for file in files))
    blobs = assign(files, piece_length)
    encoded = [encode_blob(blob, piece_length) for blob in blobs]
    manifest = b"".join(put_element(1, message) for message, _ in encoded)
    manifest += b"".join(put_element(2, encode_entry(entry, blobs, preserve)) for entry in entries)
    descriptor = (
        put_number(1, 2)
        + put_bytes(2, os.fsencode(name) if name else os.path.basename(path))
        + put_number(3, piece_length)
        + put_number(4, sum(map(len, blobs)))
        + put_number(5, sum(hole_bytes for _, hole_bytes in encoded))
        + put_number(6, sum(-(-len(blob) // piece_length) for blob in blobs))
        + put_number(7, len(manifest))
        + put_bytes(8, blake3(manifest).digest())
    )
    return descriptor, manifest


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--name")
    parser.add_argument("--piece-length", type=int, help="bytes; without it, chosen by size")
    parser.add_argument("--links", choices=["follow", "skip"], default="follow")
    parser.add_argument("--preserve", action="store_true")
    parser.add_argument("--bytes", action="store_true", help="print descriptor and manifest too")
    arguments = parser.parse_args()
    show_bytes = arguments.__dict__.pop("bytes")
    descriptor, manifest = describe(**vars(arguments))
    if show_bytes:
        print(f"descriptor {descriptor.hex()}\nmanifest {manifest.hex()}")
    print(blake3(descriptor).hexdigest())


if __name__ == "__main__":
    main()
