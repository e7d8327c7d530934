"""The searchable index: one safetensors file `.vtri`, mapped into memory, searched exactly or, by `--ann`, nearly so.

    ids int64 [N], ascending | offsets int64 [N + 1] into paths uint8 [bytes] | spans float64 [N, 2] | sizes, mtimes
    int64 [N] | embeddings float32 or float16 [N, D] | frame_embeddings float16 [N, T, D] | digest uint8 [32]

`spans` holds start and end in seconds (NaN: the file's own), `sizes` and `mtimes` the files' bytes and nanoseconds (-1:
unknown). `sizes`, `mtimes`, `frame_embeddings` and `digest`, the sha256 of ids and embeddings, may be absent. The
metadata carries schema, space, metric, count, kind (video, or text: then `paths` are sentences) and next_id."""

from .opened import Hit, Index, check_space, group_by_file
from .update import Update, open_rows, plan_update
from .write import write_index, write_update

__all__ = [
    "Hit",
    "Index",
    "Update",
    "check_space",
    "group_by_file",
    "open_rows",
    "plan_update",
    "write_index",
    "write_update",
]
