"""Writes GGUF v3 files, by the format's description and nothing of ours."""
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
NUMBERS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(kind, v):
    """v of a kind; an array is (kind of its elements, elements)."""
    if kind == STR:
        return text(v)
    if kind == ARR:
        return struct.pack("<IQ", v[0], len(v[1])) + b"".join(value(v[0], x) for x in v[1])
    return struct.pack("<" + NUMBERS[kind], v)


def kind_of(v):
    """What a Python value usually is in a file: (kind, value)."""
    if isinstance(v, list):
        return ARR, (STR if isinstance(v[0], str) else I32, v)
    return {bool: BOOL, int: U32, float: F32, str: STR}[type(v)], v


def gguf(pairs, tensors=(), align=32):
    """pairs: [(key, value)] or [(key, kind, value)]; tensors: [(name, dims innermost first, type, bytes)]"""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    for key, *v in pairs:
        kind, v = v if len(v) == 2 else kind_of(v[0])
        out += text(key) + struct.pack("<I", kind) + value(kind, v)
    data = b""
    for name, dims, kind, content in tensors:
        data += b"\0" * (-len(data) % align)
        out += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        out += struct.pack("<IQ", kind, len(data))
        data += content
    return out + b"\0" * (-len(out) % align) + data
