"""A host that did not answer. The case at which it happened fails; the others, and the other hosts, go on.

HostError                 the host answered with an error of its own, or could not be started
├── HostCrashed           its process ended
├── HostTimeout           it took longer than it may, and was killed
└── HostProtocolError     what it sent is not the protocol
"""

from __future__ import annotations

from vtr_runtime.errors import VtrError


class HostError(VtrError):
    pass


class HostCrashed(HostError):  # noqa: N818
    pass


class HostTimeout(HostError):  # noqa: N818
    pass


class HostProtocolError(HostError):
    pass
