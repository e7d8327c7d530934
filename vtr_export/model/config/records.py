"""What every configuration type shares: settings that belong to a `kind`, and one sentence for a bad one."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic import model_validator as validates

from vtr_runtime.errors import ConfigError
from vtr_runtime.manifest import Record

Positive = Annotated[float, Field(gt=0)]


class KindRecord(Record):
    """Settings of which `kind` says which apply. Others are refused when set and left out when written, so that
    a setting without effect can neither mislead nor change a fingerprint."""

    applies: ClassVar[Mapping[str, frozenset[str]]]
    kind: str

    @validates(mode="after")
    def _only_what_applies(self) -> Self:
        idle = sorted(self.model_fields_set - self.applies[self.kind] - {"kind"})
        if idle:
            raise ValueError(f"{', '.join(idle)} has no effect on kind '{self.kind}'; leave it out")
        return self

    @model_serializer(mode="wrap")
    def _write_what_applies(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        kept = self.applies[self.kind] | {"kind"}
        return {key: value for key, value in handler(self).items() if key in kept}


def settings_error(what: str, error: ValidationError) -> ConfigError:
    """Name the first setting that cannot be honoured, what was received, and why."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    received = "" if first["type"] in ("missing", "value_error") else f" (received {reprlib.repr(first['input'])})"
    return ConfigError(f"{what} cannot be used: {f'{place}: ' if place else ''}{reason}{received}")
