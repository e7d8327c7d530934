"""The captions' word weights (vtr_runtime.word_weights), found when data are prepared and never in training: they lie
beside the ids, in a file whose name is a fingerprint of all that they are made from, so a cache is never stale."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtr_runtime.console import progress
from vtr_runtime.errors import StorageError
from vtr_runtime.manifest import TextSpec, fingerprint
from vtr_runtime.parts_of_speech import Tagger
from vtr_runtime.publish import staged_file
from vtr_runtime.text import Ids, Tokenizer
from vtr_runtime.word_weights import WEIGHTS_VERSION, Weights
from vtr_runtime.word_weights import word_weights as weigh


def word_weights(captions: Sequence[str], ids: Ids, tokenizer: Tokenizer, tagger: Tagger) -> Weights:
    """`vtr_runtime.word_weights.word_weights` with a bar."""
    with progress("weighing words", len(set(captions))) as bar:
        return weigh(captions, ids, tokenizer, tagger, advance=bar.advance)


def cached_word_weights(
    captions: Sequence[str], ids: Ids, tokenizer: Tokenizer, tagger: Tagger, folder: Path
) -> Weights:
    """`word_weights`, kept in `folder` and read from there when asked for the same again.

    StorageError if the folder cannot be used."""
    place = folder / f"word-weights-{_key(captions, ids, tokenizer.spec, tagger)}.npy"
    try:
        if not place.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            weights = word_weights(captions, ids, tokenizer, tagger)
            with staged_file(place) as staged, staged.open("wb") as stream:
                np.save(stream, weights)
        loaded: Weights = np.load(place)
    except (OSError, StorageError) as error:
        raise StorageError(
            f"word weights cannot be kept in {folder} ({error}); set data.cache to a folder with room"
        ) from error
    except (ValueError, EOFError) as error:  # numpy, for what is no .npy file
        raise StorageError(f"{place} is damaged ({error}); delete it and run the same command again") from error
    return loaded


def _key(captions: Sequence[str], ids: Ids, spec: TextSpec, tagger: Tagger) -> str:
    # Escaped as ASCII: a caption may hold a surrogate pair, which UTF-8 refuses and cleaning joins.
    texts, rows = json.dumps(list(captions)).encode(), ids.tobytes()
    digests = [hashlib.sha256(data).hexdigest() for data in (texts, rows)]
    return fingerprint([WEIGHTS_VERSION, tagger.name, spec.model_dump(mode="json"), digests])[:24]
