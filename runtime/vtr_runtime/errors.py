"""The error tree. A message is one sentence: what is wrong, and what mends it.

VtrError                1  something that was asked for was not done
├── UsageError          2  wrong use, nothing begun
│   ├── ConfigError        a configuration or an argument that cannot be honoured
│   └── OutputExistsError  the output is there already
├── MediaError          1  a video file from which no frame can be had
├── TextError           1  a caption that cannot be tokenized
├── BundleError         1  a damaged, foreign or newer bundle
├── CheckpointError     1  a damaged, foreign or unsafe checkpoint
├── DataError           1  a data set or an embeddings file that is not what it should be
├── SpaceError          1  embeddings of another model
├── BackendError        1  an engine that is absent or cannot run the graph
│   └── UnavailableError   what this machine has not: a library, a GPU, an engine
├── StorageError        1  the disk is full or refuses
└── GateError           3  a gate was not met, nothing was published
"""

from __future__ import annotations


class VtrError(Exception):
    """Base of every error that this project raises on purpose; `exit_status` is what a command ends with."""

    exit_status = 1


class UsageError(VtrError):
    exit_status = 2


class ConfigError(UsageError):
    pass


class OutputExistsError(UsageError):
    pass


class MediaError(VtrError):
    pass


class TextError(VtrError):
    pass


class BundleError(VtrError):
    pass


class CheckpointError(VtrError):
    pass


class DataError(VtrError):
    pass


class SpaceError(VtrError):
    pass


class BackendError(VtrError):
    pass


class UnavailableError(BackendError):
    pass


class StorageError(VtrError):
    pass


class GateError(VtrError):
    exit_status = 3
