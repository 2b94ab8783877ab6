"""Seeded mutations: of a model's protobuf field by field, and of the bytes of any file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 127, 255, 256, 65535, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, -(2**63))
REALS = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    *("", "x", "y", "\x00", "\x1b[2J\x07", "\u202eabc", "a" * 300, "../../w.bin", "/dev/zero", "{}", "%s%n", "ai.onnx"),
    *("com.microsoft", "Relu", "Conv", "Loop", "If", "Identity", "\U0001f600"),
)
_MOST_COPIES = 20
_WHOLE = {
    *(FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_UINT32),
    FieldDescriptor.TYPE_ENUM,
}
_REAL = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}


def model(rng: random.Random, source: bytes) -> bytes:
    """Return a model with one to four fields changed, removed, repeated or taken from elsewhere in it."""
    proto = onnx.ModelProto()
    proto.ParseFromString(source)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        messages = list(_messages(proto))
        _change(rng, rng.choice(messages), messages)
    return proto.SerializeToString()


def content(rng: random.Random, source: bytes) -> bytes:
    """Return a file with some of its bytes changed, removed, inserted, repeated or cut off."""
    found = bytearray(source)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not found:
            break
        at = _place(rng, len(found))
        rng.choice(_BYTES)(rng, found, at)
    return bytes(found)


def _place(rng: random.Random, size: int) -> int:
    """Return a place in a file; half of them in its head, where the structure is."""
    return rng.randrange(min(size, 256) if rng.random() < 0.5 else size)


def _flip(rng: random.Random, found: bytearray, at: int) -> None:
    found[at] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, found: bytearray, at: int) -> None:
    found[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _word(rng: random.Random, found: bytearray, at: int) -> None:
    size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice(NUMBERS) % (1 << 8 * size)
    found[at : at + size] = value.to_bytes(size, "little" if order == "little" else "big")


def _remove(rng: random.Random, found: bytearray, at: int) -> None:
    del found[at : at + rng.choice((1, 2, 16, 256))]


def _insert(rng: random.Random, found: bytearray, at: int) -> None:
    found[at:at] = rng.randbytes(rng.choice((1, 2, 16, 256)))


def _repeat(rng: random.Random, found: bytearray, at: int) -> None:
    found[at:at] = found[at : at + rng.choice((8, 64, 512))] * rng.choice((1, 2, 8))


def _cut(rng: random.Random, found: bytearray, at: int) -> None:
    del found[at:]


_BYTES: tuple[Callable[[random.Random, bytearray, int], None], ...] = (
    *(_flip, _set, _word, _remove, _insert, _repeat, _cut),
)


def _messages(message: Message) -> Iterator[Message]:
    """Yield a message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner)


def _change(rng: random.Random, message: Message, others: list[Message]) -> None:
    """Change one field of a message; mostly one that is there."""
    set_fields = [field for field, _ in message.ListFields()]
    fields = set_fields if set_fields and rng.random() < 0.8 else list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    if field.is_repeated:
        _change_list(rng, message, field, others)
    elif rng.random() < 0.15:
        message.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        like = [m for m in others if m.DESCRIPTOR is field.message_type and m is not message]
        if like and (chosen := rng.choice(like)).ByteSize() < 1 << 20:
            copied = type(chosen)()
            copied.CopyFrom(chosen)
            getattr(message, field.name).CopyFrom(copied)
    else:
        setattr(message, field.name, _value(rng, field, getattr(message, field.name), others))


def _change_list(rng: random.Random, message: Message, field: FieldDescriptor, others: list[Message]) -> None:
    values = getattr(message, field.name)
    what = rng.randrange(5)
    if what == 0 and values:
        del values[rng.randrange(len(values))]
    elif what == 1 and values:
        chosen = values[rng.randrange(len(values))]
        values.extend([chosen] * rng.randrange(1, _MOST_COPIES))
    elif what == 2 and len(values) > 1:
        kept = list(values)
        rng.shuffle(kept)
        copies = [_copied(v) for v in kept]
        del values[:]
        values.extend(copies)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        like = [m for m in others if m.DESCRIPTOR is field.message_type]
        values.append(_copied(rng.choice(like))) if like and rng.random() < 0.7 else values.add()
    elif values:
        values[rng.randrange(len(values))] = _value(rng, field, values[0], others)
    else:
        values.append(_value(rng, field, None, others))


def _copied(value: Any) -> Any:
    if not isinstance(value, Message):
        return value
    copied = type(value)()
    copied.CopyFrom(value)
    return copied


def _value(rng: random.Random, field: FieldDescriptor, now: Any, others: list[Message]) -> Any:
    """Return another value for a field, of its type."""
    if field.type in _WHOLE:
        if field.enum_type is not None:
            return rng.choice([v.number for v in field.enum_type.values])
        near = [now + 1, now - 1, -now] if isinstance(now, int) else [1]
        value = rng.choice((*NUMBERS, *near))
        bits = 31 if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32) else 63
        unsigned = field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
        return max(0 if unsigned else -(1 << bits), min(value, (1 << bits) - 1))
    if field.type in _REAL:
        return rng.choice(REALS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return content(rng, now or b"\x00\x01")
    names = [n for m in others if isinstance(m, onnx.NodeProto) for n in (*m.input, *m.output, m.op_type)]
    return rng.choice((*TEXTS, *names))
