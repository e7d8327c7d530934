"""What goes in and out as JSON. A field that is not named here is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_TEXTS = 256
MAX_CHARACTERS = 5_000  # the model reads 77 tokens of them; cleaning takes a second for a million
MAX_HITS = 100
MAX_MOMENTS = 20

Sentence = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Sentences = Annotated[list[Sentence], Field(min_length=1, max_length=MAX_TEXTS)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextsRequest(_Strict):
    texts: Sentences


class SearchRequest(_Strict):
    """`text` or `texts`. With `moments` a file comes once, with its best parts."""

    text: Sentence | None = None
    texts: Sentences | None = None
    k: int = Field(default=10, ge=1, le=MAX_HITS)
    moments: int | None = Field(default=None, ge=1, le=MAX_MOMENTS)

    @model_validator(mode="after")
    def _one_of_both(self) -> SearchRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either text, one sentence, or texts, a list")
        return self

    @property
    def sentences(self) -> list[str]:
        return [self.text] if self.text is not None else self.texts or []


class Texts(BaseModel):
    """`embeddings`: a list of unit length D for each sentence."""

    embeddings: list[list[float]]
    space: str


class Video(BaseModel):
    """`times`: of the frames that were seen, in seconds. `warnings`: what was not right with the file."""

    embedding: list[float]
    times: list[float]
    warnings: list[str]
    space: str


class Moment(BaseModel):
    """Part of a file. `start` and `end` in seconds; null: the file's own."""

    id: int
    score: float
    start: float | None
    end: float | None


class Hit(Moment):
    """A clip. `media` and `still` are addresses here; `others`: further parts of the same file, best first."""

    name: str
    media: str
    still: str
    others: list[Moment] = []


class Result(BaseModel):
    """What one sentence found, best first."""

    text: str
    hits: list[Hit]


class Search(BaseModel):
    results: list[Result]
    space: str


class Health(BaseModel):
    """`clips`: rows of the index; null without one."""

    ok: bool
    space: str
    variant: str
    backend: str
    clips: int | None


class Failure(BaseModel):
    """Every answer that is no success: one sentence."""

    error: str
