"""A multipart body, piece by piece onto disk: one file and a few short fields, whatever the body holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..errors import UsageError

FILE = "file"
FIELDS = ("start", "end")
FIELD_BYTES, HEADER_BYTES = 64, 4096


class UploadReader:
    """Writes the part named `file` to `path` as it comes. UsageError for any other body than the one asked for.

    Nothing of the client's file name is used, and no more of a field is kept than a number needs."""

    def __init__(self, content_type: str, path: Path) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UsageError(f"send the video as multipart/form-data, for example: curl -F {FILE}=@clip.mp4")
        self.fields: dict[str, float] = {}
        self._file, self._has_file = path.open("wb"), False
        self._header: list[bytes] = [b"", b""]
        self._name = ""
        self._value = b""
        self._ended = False
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._header_part(0),
                "on_header_value": self._header_part(1),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise UsageError(f"the multipart body cannot be read ({error}); send it again") from error

    def finish(self) -> None:
        """After the last piece: is all there?"""
        if not self._ended:
            raise UsageError("the multipart body ends early; send it again")
        if not self._has_file:
            raise UsageError(f"the body has no part named '{FILE}'; send the video as: curl -F {FILE}=@clip.mp4")

    def close(self) -> None:
        self._file.close()

    def _begin_part(self) -> None:
        self._name, self._value = "", b""

    def _header_part(self, place: int) -> Callable[[bytes, int, int], None]:
        def add(data: bytes, start: int, end: int) -> None:
            self._header[place] += data[start:end]
            if len(self._header[place]) > HEADER_BYTES:
                raise UsageError("a part of the body has a header that is too long; send it as curl -F does")

        return add

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._name = parse_options_header(value)[1].get(b"name", b"").decode("utf-8", "replace")
        self._header = [b"", b""]

    def _end_headers(self) -> None:
        if self._name in self.fields or (self._name == FILE and self._has_file):
            raise UsageError(f"the body has two parts named '{self._name}'; send one video a request")
        if self._name == FILE:
            self._has_file = True
        elif self._name not in FIELDS:
            raise UsageError(
                f"the body has a part named {self._name[:FIELD_BYTES]!r} and may have {FILE}, {' and '.join(FIELDS)}; "
                "a client names no file of the server"
            )

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._file.write(memoryview(data)[start:end])
        else:
            self._value += data[start:end]
            if len(self._value) > FIELD_BYTES:
                raise UsageError(f"'{self._name}' is no number of seconds")

    def _end_part(self) -> None:
        if self._name == FILE:
            return
        try:
            self.fields[self._name] = float(self._value)
        except ValueError:
            shown = self._value.decode("utf-8", "replace")
            raise UsageError(f"'{self._name}' is {shown!r}, no number of seconds") from None

    def _end(self) -> None:
        self._ended = True
