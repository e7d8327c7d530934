"""Protobuf's text format, as far as a model configuration needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "str | int | bool | Mapping[str, Value] | Sequence[Value]"
Message: TypeAlias = Mapping[str, Value]


class Name(str):
    """A value of an enum, which is written without quotes."""

    __slots__ = ()


def entries(pairs: Mapping[str, Value]) -> list[Message]:
    """A map field: protobuf writes one as repeated messages of a key and a value."""
    return [{"key": key, "value": value} for key, value in pairs.items()]


def to_pbtxt(message: Message) -> str:
    """One field a line, in the order given; a list is a repeated field."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for field, value in message.items():
        for item in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if isinstance(item, Mapping):
                yield f"{field} {{"
                yield from (f"  {line}" for line in _lines(item))
                yield "}"
            else:
                yield f"{field}: {_scalar(item)}"


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Name | int):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
