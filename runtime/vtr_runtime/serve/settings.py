"""What a service is started with."""

from __future__ import annotations

import ipaddress
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Limits and places. UsageError for what makes no sense."""

    host: str = "127.0.0.1"
    port: int = 8080  # 0: any free one
    media_root: Path | None = None  # files outside are not shown; relative paths of the index lie in it
    max_upload_bytes: int = 512 << 20
    max_json_bytes: int = 1 << 20
    timeout: float = 30.0  # seconds: to answer, and to send a request's head
    least_rate: int = 64 << 10  # bytes a second; a body may take `timeout` and what its bytes take at this rate
    batch: int = 64  # sentences of one pass through the text tower
    batch_wait: float = 0.002  # seconds that a sentence waits for others
    queue: int = 1024  # sentences that may wait
    decoders: int = field(default_factory=lambda: os.cpu_count() or 1)  # videos decoded at the same time
    uploads: int = 16  # videos received or embedded at the same time; each may fill `max_upload_bytes`
    requests: int = 256  # of any kind, at the same time

    def __post_init__(self) -> None:
        for name, least in (("max_upload_bytes", 1), ("batch", 1), ("timeout", 0.001), ("batch_wait", 0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise UsageError(f"{name} is {value}; it must be at least {least}")
        if self.media_root is not None and not self.media_root.is_dir():
            raise UsageError(f"--media-root {self.media_root} is not a folder; give the one that holds the videos")

    @property
    def is_local(self) -> bool:
        """Only this machine can reach the service."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Does the name or address mean this machine itself?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
