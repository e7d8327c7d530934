"""open_clip's BPE vocabulary -> tokenizer.json for the `tokenizers` library."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from vtr_runtime.manifest import TextSpec
from vtr_runtime.publish import staged_file
from vtr_runtime.text import END, START, Cleaning


def write_tokenizer(path: Path, *, context_length: int = 77, cleaning: Cleaning = "standard") -> TextSpec:
    """Write tokenizer.json for cleaned captions (`vtr_runtime.text.clean`) and return what the manifest says of it.

    It holds no normalizer and no post-processor: cleaning, start, end and truncation are the hosts' work, and so is one
    rule for special tokens (`vtr_runtime.text.Tokenizer`). The bytes are the same every time; only another Unicode
    version of the `regex` module, which open_clip splits with, changes them.
    """
    from open_clip.tokenizer import SimpleTokenizer  # it imports torch

    original = SimpleTokenizer()
    tokenizer = Tokenizer(models.BPE(original.encoder, list(original.bpe_ranks), end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_word_pattern()), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(literal, normalized=False, special=True) for literal in (START, END)])
    with staged_file(path) as staged:
        staged.write_text(tokenizer.to_str(), encoding="utf-8")
    return TextSpec(
        cleaning=cleaning,
        context_length=context_length,
        vocab_size=tokenizer.get_vocab_size(),
        start_id=original.sot_token_id,
        end_id=original.eot_token_id,
    )


def _word_pattern() -> str:
    r"""open_clip's pattern with its classes spelled out as ranges, so that every engine splits alike.

    The engine in `tokenizers` knows an older Unicode than the `regex` module: 17,481 code points are in another class
    (tokenizers 0.23.3 ends with Unicode 16, regex 2026.11.15 does not). And open_clip ignores case beyond lower-casing:
    the long s stands for s, and U+0345, which folds to a letter but is none, is in no class at all and is dropped.
    """
    letter, number, other = (_class_ranges(source) for source in (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]"))
    specials = "<[sſ]tart_of_text>|<end_of_text>"
    return f"{specials}|'[sſ]|'t|'re|'ve|'m|'ll|'d|[{letter}]+|[{number}]|[{other}]+"


def _class_ranges(source: str) -> str:
    import regex  # type: ignore[import-untyped]  # open_clip's own engine

    # Each character stands at its own code point; the surrogates, which no text holds, are blanks.
    alphabet = "".join(" " if 0xD800 <= code < 0xE000 else chr(code) for code in range(0x110000))
    runs = regex.compile(f"{source}+", regex.IGNORECASE).finditer(alphabet)
    return "".join(rf"\x{{{run.start():X}}}-\x{{{run.end() - 1:X}}}" for run in runs)
