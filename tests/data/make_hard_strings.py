"""Makes hard_strings.jsonl: captions, by class, at which cleaning or tokenizing goes wrong easily.

    python tests/data/make_hard_strings.py

The text is our own, and no Unicode table is asked, so that the file is the same from every Python."""

from __future__ import annotations

import json
import random
from pathlib import Path

PATH = Path(__file__).with_name("hard_strings.jsonl")


def framed(parts: list[str] | str, *frames: str) -> list[str]:
    """Every part in every frame, in place of the `@`."""
    return [frame.replace("@", part) for part in parts for frame in frames]


def span(first: int, last: int, step: int = 1) -> list[str]:
    return [chr(code) for code in range(first, last + 1, step)]


def nested(entity: str, depth: int) -> str:
    return entity.replace("&", "&" + "amp;" * depth)


WHITE_SPACE = [
    *"\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2028\u2029\u202f\u205f\u3000",
    *span(0x2000, 0x200B),
]
INVISIBLE = [
    *"\xad\u034f\u061c\u115f\u17b4\u3164\uffa0\ufeff\ufff9\ufffa\ufffb\ufffc\ufe0e\ufe0f\U000e0001\U000e0061\U000e0100",
    *span(0x200B, 0x200F),
    *span(0x202A, 0x202E),
    *span(0x2060, 0x206F),
    "\U0001d173",
]
EMOJI = [
    "😀", "❤️", "❤", "☕", "👍", "👍🏽", "👋🏿👋🏻", "🏽", "👩‍🚀", "👨‍👩‍👧‍👦", "👩🏽‍❤️‍💋‍👨🏿", "🏳️‍🌈",
    "🏴‍☠️", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "🇫🇷", "🇯🇵🇧🇷", "🇫", "🇫🇷🇯", "1️⃣",
    "#️⃣*️⃣", "©️®™️", "🅰🆎", "㊗️", "🀄🃏", "🤷🏾‍♀️", "🧑‍🤝‍🧑", "👁️‍🗨️", "\u200d👩", "👩\u200d",
    "👩\u200d\u200d🚀", "\ufe0f😀", "🫠🫡", "🫩", "⌚⏰", "♀♂⚧", "☺☻", "😀😀😀😀😀😀😀😀", "🐶🐱🐭", "✂️✈️✉️",
    "➡️⬅️",
]  # fmt: skip
COMBINING = [
    "café", "cafe\u0301", "e\u0301\u0323", "e\u0323\u0301", "\u0301", "\u0301a", "a\u0345", "\u0345", "α\u0345",
    "\u0344", "\u0308\u0301", "Å", "A\u030a", "\u212b", "\u2126", "\u212a", "ệ", "e\u0323\u0302", "e\u0302\u0323",
    "ǖ", "u\u0308\u0304", "\u1e9b\u0323", "\u0f73", "\u0f71\u0f72", "\u0f75\u0f81", "각", "\u1100\u1161\u11a8",
    "\u1100\u1161", "\u1100", "가\u11a8", "\u0958", "क\u093c", "\u2adc", "が", "か\u3099", "か\u309b",
    "q\u0307\u0323", "Z" + "\u0300\u0316\u0334\u0345" * 12, "z" + "\u0336" * 40, "ö̲ü̲", "\u20dd1", "1\u20e3", "שׁ",
    "\ufb2a", "لا", "مُحَمَّد", "\u0e01\u0e33", "නි", "\U0001d15e", "\U0001d157\U0001d165", "ﷺ",
    "\u0340\u0341\u0343", "a\u0360b", "x\u0338=", "≠", "=\u0338", "\U00011099", "\u0cca",
]  # fmt: skip
LIGATURES = [
    *"ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬅﬆœŒæÆßẞꜲꜳᴂ", *span(0xFB13, 0xFB17), "\ufb4f", "\ufefb", "\ufdfa", "㏂", "№", "℡", "㎏",
]  # fmt: skip
WIDTHS = [
    *span(0xFF01, 0xFF5E, 2), *span(0xFF61, 0xFF9F, 4), *"￠￡￢￣￤￥￦￨￩￫￭￮\uffa1\uffc2\uffdc", "ｶﾞ", "ﾊﾟ",
    "ＬＯＵＤ　ｎｏｉｓｅ", "＆ａｍｐ；", "＜ｅｎｄ＿ｏｆ＿ｔｅｘｔ＞",
]  # fmt: skip
QUOTES = [
    *span(0x2018, 0x201F),
    *"\u02bc\u02bb\u2032\u2033\u2035«»‹›`´\uff07\uff02\u275b\u275d\u301d\u2e42\u05f3\u05f4'\"",
]  # fmt: skip
ENTITIES = [
    "&amp;", "&lt;", "&gt;", "&quot;", "&apos;", "&nbsp;", "&eacute;", "&EACUTE;", "&Eacute;", "&eACUTE;", "&AMP;",
    "&LT;", "&Lt;", "&hellip;", "&copy;", "&COPY;", "&szlig;", "&SZLIG;", "&fjlig;", "&NotEqualTilde;",
    "&CounterClockwiseContourIntegral;", "&acE;", "&bne;", "&zwj;", "&ZeroWidthSpace;", "&NewLine;", "&Tab;",
    "&shy;", "&rsquo;", "&ldquo;", "&num;", "&semi;", "&lowbar;", "&zwnj;", "&#39;", "&#x27;", "&#X27;", "&#0;",
    "&#00;", "&#1;", "&#9;", "&#10;", "&#13;", "&#31;", "&#38;", "&#038;", "&#60;", "&#127;", "&#128;", "&#x80;",
    "&#x85;", "&#129;", "&#153;", "&#160;", "&#233;", "&#8217;", "&#x1F600;", "&#128512;", "&#xD800;",
    "&#55357;&#56832;", "&#xDFFF;", "&#xFFFE;", "&#xFFFF;", "&#xFDD0;", "&#x10FFFF;", "&#x110000;", "&#1114112;",
    "&#99999999999;", "&#x0000000000000041;", "&#0000000000000000000000000000000065;", "&#" + "9" * 60 + ";",
    "&#xFEFF;", "&#27;[1m", "&#x1b;[0m", "&#٣٣;", "&#x;", "&#;", "&#", "&", "&;", "&&", "&&amp;", "& amp;", "&amp",
    "&ampx", "&amp ;", "&lt", "&ltx", "&notit;", "&notin;", "&not", "&no", "&copy", "&copyx", "&#65", "&#65x",
    "&#x41", "&#x41g", "&unknown;", "&a;", "&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;", "&eacute", "&EACUTE",
    "&Eacutex", "&amp;lt", "&amp;amp", "&amp;#39;", "&amp;#x27;", "&&num;38;", "&&#97;mp;", "&am&#1;p;",
    "&am\x00p;", "&&&#1;#1;", "&lt;b&gt;", "&lt;end_of_text&gt;", "&amp;lt;start_of_text&amp;gt;", "R&B",
    "AT&T; Q&A;", "a&nbsp;&nbsp;b", "?a=1&copy=2&lang=en", "&tilde;&circ;&macr;", "&ensp;|&emsp;|&thinsp;",
    "&alefsym;&real;", "&Sigma;&sigmaf;", "&Idot;&imath;", "&Afr;&afr;&Aopf;", "&frac12;&sup2;", "&ffilig;&IJlig;",
]  # fmt: skip
LITERALS = ["<start_of_text>", "<end_of_text>"]
LITERAL_FRAMES = [
    "@", "a@", "@a", "a@b", "a @ b", "@@", "@ @", "1@", "@1", "!@", "@!", "!@!", "<@", "@>", "<@>", "'@'", "'s@",
    "it's@", "!'s@", "\u0301@", "e\u0301\u0345@", "😀@", "@😀", "!@@", "! @@", "中@文", "_@_", "@\n@", "..@..@",
    "\u200b@", "@@@@@@@@", "&amp;@", "@&amp;", "a dog @ runs @ away",
]  # fmt: skip
BROKEN_LITERALS = [
    "<START_OF_TEXT>", "<End_Of_Text>", "<eNd_OF_teXt>", "<ſtart_of_text>", "<ſTART_OF_TEXT>", "<start_of_text",
    "start_of_text>", "<start_of_ text>", "<start_of_text >", "<start of text>", "<end\u200b_of_text>",
    "<end_of\u0301_text>", "<ｅnd_of_text>", "<end_of_ﬆext>", "<|startoftext|>", "<|endoftext|>", "<|END|>", "</w>",
    "a</w>", "<unk>", "[PAD]", "<pad>", "<s>", "Ġdog", "##ing", "▁dog", "!", "!!", "! !", "!" * 74, "!" * 76,
]  # fmt: skip
CONTRACTIONS = [
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'Ll", "'ſ", "'x", "'", "''s", "'s't", "s'", "'re've",
    "'tis", "'dog", "'sdog", "'1", "'lla", "’s", "ʼll",
]  # fmt: skip
NUMBERS = [
    "2024", "1st", "3.14", "1,000,000", "1e-5", "0x1F", "007", "24/7", "4k60fps", "a1b2c3", "10²", "H₂O", "½",
    "⅓ cup", "Ⅷ", "ⅷ", "ↁ", "①②", "⑴", "⒈", "㊿", "㉈", "〇", "一二三", "〡〢", "٣٤٥", "۴۵", "३४", "৪৵", "௧௲", "൰",
    "༣༳", "፩፼", "០៰", "᠐᠙", "௨", "𝟘𝟙", "𝟬", "🄀🄁", "🯰", "𐄇", "𐏑", "𐡘", "𒐕", "𒑯", "𒑵", "𝍠", "𞣇", "\U00011de1",
    "\U00010d41", "\U00016d70", "₀₉", "⁰⁹", "Ⅻ Ⅼ", "12th-century", "5'11\"", "90°", "100%", "+1-800",
]  # fmt: skip
SENTENCES = [
    "一只狗在草地上奔跑", "一隻狗,在草地上奔跑。", "犬が公園を走る", "カタカナとひらがなと漢字",
    "개가 공원에서 달린다", "كلب يجري في الحديقة", "كَلْبٌ يَجْرِي", "سگ در پارک می‌دود", "کتا پارک میں دوڑتا ہے",
    "כלב רץ בפארק", "כֶּלֶב", "สุนัขวิ่งในสวน", "कुत्ता पार्क में दौड़ता है", "কুকুর দৌড়ায়", "நாய் ஓடுகிறது",
    "కుక్క పరుగెత్తుతోంది", "നായ ഓടുന്നു", "ကွေးက ပြေးနေတယ်", "ឆ្កែរត់", "ໝາແລ່ນ", "ཁྱི་རྒྱུག", "ძაღლი გარბის",
    "ՇՈՒՆԸ վազում է և", "Собака БЕЖИТ по парку", "Пёс ёлка ЙОД", "Σκύλος ΤΡΕΧΕΙ στο ΠΆΡΚΟ",
    "Ένας σκύλος, ΟΔΟΣ ΟΔΟΣ. Σ", "ውሻ ይሮጣል", "ᎩᏟ ꭹꮯ", "ᠨᠣᠬᠠᠢ", "Con chó chạy trong công viên",
    "Bir köpek İSTANBUL'da KOŞUYOR ığdır", "Ein GROẞER Straßenhund, müde", "Øre Århus ærø", "Łódź żółw",
    "El niño ¿dónde? ¡aquí!", "Garçon, l'été où ça?", "ʻŌlelo Hawaiʻi", "Nǐ hǎo", "a 狗 dog собака كلب",
    "中a文1字!か", "日本語english混在123", "العربية123english", "עברית abc אבג 456", "ไทย123abc", "हिन्दी१२३",
    "한글abc漢字かな", "𐐔𐐇𐐝 𐐼𐐯𐑅", "𓀀𓁐", "𒀀𒁀", "ⵜⴰⵎⴰⵣⵉⵖⵜ", "ꓡꓲꓢꓴ", "ދިވެހި", "ܣܘܪܝܝܐ", "සිංහල",
]  # fmt: skip
CASES = [
    "İ", "I\u0307", "ı", "İİ", "ISTANBUL İSTANBUL", "ß", "ẞ", "STRASSE", "Σ", "ΑΣ", "ΑΣΑ", "ΑΣ.", "ΑΣ'Α",
    "ΑΣ\u0301", ".Σ", "Σ.", "Ας", "ǅ", "ᾈ", "ᾼ", "Ω\u0345", "ſ", "K\u212a", "Å\u212b", "Ⅷ", "Ⓐⓐ", "ᲐᲑᲒ", "Ꭰꭰ", "ᵃᴬ",
    "ªº", "µΜμ", "ϴθϑ", "ϰϱ", "ẛ", "ɐⱯ", "ꞰꞱ", "𐐀𐐨", "𞤀𞤢", "ŒŸ", "ÑÑ", "ÀÉÎÕÜ", "ǺǼ", "Ժ՚", "ЀЍ", "ҐЎ",
    "MiXeD CaSe", "ALL CAPS!!!", "iPhone",
]  # fmt: skip
MATH = [
    "𝒜𝒷", "𝔸𝕓", "𝕬𝖇", "𝗔𝗯", "𝙰𝚋", "𝛀𝜔", "ℵℶ", "ℝℂ", "∑∏∫", "∞≤≥≠", "→⇒↔", "√2", "x²+y²=z²", "a⊕b", "∀x∃y", "Ⓐⓑ",
    "🅐🄰🅰", "㋐㋑", "🄋➀", "℃℉", "𝟏𝟐", "ₐₑ", "ʰʲ", "ⁿ", "⟨x|y⟩", "µm", "Å", "⁂※", "…‥", "–—―‐‑",
]  # fmt: skip
EDGES = [
    "\ud7ff", "\ue000", "\uf8ff", "\ufdd0", "\ufdef", "\ufffd", "\ufffe", "\uffff", "\U00010000", "\U0001fffe",
    "\U0001ffff", "\U000f0000", "\U000ffffd", "\U0010ffff", "\U000e007f", "\U000e0fff", "\u0378", "\u0558",
    "\u058b", "\u088f", "\u0c5c", "\u0cdc", "\u05ff", "\u1cbb", "\u208f", "\u209d", "\u2fe0", "\ua7ce", "\ua7dc",
    "\U000105c0", "\U00010940", "\U00011db0", "\U00011f04", "\U000187f8", "\U0002a6e0", "\U0002ebf0", "\U000323b0",
    "\U00033480", "\U0001e6c0", "\U0003fffd", "\U00080000", "\u2e80\u2ff0", "\ue0b0\ue0a0", "\uf000",
]  # fmt: skip
CODE = [
    "https://example.org/a/b?c=d&e=f#g", "http://user:pw@host:8080/%20x", "www.example.com/~me",
    "mailto:a.b+c@d.co.uk", "C:\\Users\\dog\\clip.mp4", "/usr/bin/env python3 -c 'print(1)'",
    "def f(x): return x**2  # square", "if (a<b && c>d) { x++; }", "<b>bold</b>", "<a href=\"x\">y</a>",
    "<!-- comment -->", "<br/>", "a<b", "a &lt; b <c", "<p>&amp;</p>", "x &amp; y\n<p>\n&amp;",
    "&amp;\n&lt;\n<\n&gt;", "{\"key\": [1, 2.5, null]}", "SELECT * FROM t WHERE a='b';--", "#hashtag @mention",
    "$PATH ${x} %d %s", "snake_case camelCase kebab-case", "__init__", "a_b", "_", "__", "\\n\\t\\u0041", "\\",
    "r/aww", "v1.2.3-rc.4+build", "```code```", "**bold** _it_", "[link](http://x.y)",
    "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./", "¯\\_(ツ)_/¯", ":-) :D <3", "a...b", "wait--what", "!?!?", "(a)(b)",
    "dog,cat;bird", "dog/cat", "50%off", "$5.00", "€5", "£3¢", "¥", "2+2=4", "a&b", "a & b", "[music]", "(laughs)",
    "*sigh*", "\"quoted\"", "it's, isn't?",
]  # fmt: skip
MOJIBAKE_SOURCES = [
    "café", "naïve “quoted” – dash", "l’été", "Ñandú", "日本", "собака", "Łódź", "😀", "it’s", "über Straße",
    "señor", "ﬁn",
]  # fmt: skip
MOJIBAKE = [
    "Ã©", "cafÃ©", "Â£5", "Â©", "â€œhelloâ€\x9d", "donâ€™t", "voilÃ le travail", "Ã la mode", "schÃ¶n", "ï»¿bom",
    "â€¦", "âœ” No problems", "l&Atilde;&copy;opard", "Ã&#8218;Â£", "ð\x9f\x98\x80", "Ð¿Ñ\x80Ð¸Ð²ÐµÑ‚", "ÃƒÂ©",
    "RUF MICH ZURÃœCK", "Ã¢â‚¬â„¢", "Ð¡Ð¾Ð±Ð°ÐºÐ°",
]  # fmt: skip
ESCAPES = [
    "\x1b[1mbold\x1b[0m", "\x1b[36;44mblue\x1b[0m", "\x1b[", "\x1b", "\x1b[m", "\x1b[;m", "\x1b[12", "\x1b[1;2;3K",
    "\x1b[?25h", "\x1b]0;title\x07", "\x1b(B", "\x1b[\x1b[mm", "a\x1b[31mb\x1b[0mc", "\x9b31mred", "\x1b[31\x00m",
    "\\x1b[31m", "\x1b[٣m", "&#27;[31m", "\x1b[1mm", "\x1b\x1b[1m[2m",
]  # fmt: skip
LINES = [
    "a\nb", "a\r\nb", "a\rb", "a\n\rb", "a\r\r\nb", "\n\n\n", "\r\n", "a\u2028b\u2029c", "a\x85b", "a\x0bb\x0cc",
    "\na\n", "a\\nb", "one\n\ntwo\n", "a\t\tb", "a \n b", "&amp;\n&amp;", "x\r",
]  # fmt: skip


def long_words() -> list[str]:
    rng = random.Random(7)
    letters = [
        "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length)) for length in (60, 120, 250, 400)
    ]
    runs = [char * length for char in "a0!é狗😀_" for length in (75, 76, 300)]
    return [
        *letters,
        *runs,
        "ha" * 150,
        "dog" * 100,
        "supercalifragilisticexpialidocious" * 8,
        "-" * 500,
        "aA" * 200,
        "a1" * 120,
        "'s" * 90,
        "é" * 90,
        "!<end_of_text>" * 20,
    ]


def lengths() -> list[str]:
    counts = (0, 1, 2, 73, 74, 75, 76, 77, 78, 79, 100, 200, 500)
    return [" ".join([word] * count) for word in ("dog", "Dachshund,") for count in counts]


def mojibake() -> list[str]:
    codecs = ("latin-1", "cp1252", "cp1250", "cp1251", "mac_roman", "cp437")
    once = [text.encode().decode(codec, errors="replace") for text in MOJIBAKE_SOURCES for codec in codecs]
    twice = [text.encode().decode("latin-1") for text in MOJIBAKE[:4]]
    return [*MOJIBAKE, *once, *twice]


def mixtures(classes: dict[str, list[str]], count: int) -> list[str]:
    """Random joins of what stands in the other classes; two are left out, lest a join be mojibake by chance."""
    rng = random.Random(11)
    short = {name: [text for text in texts if len(text) <= 60] for name, texts in classes.items()}
    parts = [text for name, texts in short.items() if name not in ("mojibake", "c1_control") for text in texts]
    return [
        rng.choice(["", " ", "a", "!"]).join(rng.choice(parts) for _ in range(rng.choice([2, 3, 5, 8])))
        for _ in range(count)
    ]


def classes() -> dict[str, list[str]]:
    made = {
        "empty": ["", " ", "   ", "\n", "\t \n", "\u3000", "\ufeff", "\x00", "\u200b", "&nbsp;", "&#0;"],
        "white_space": framed(WHITE_SPACE, "a@dog", "@a dog@", "a @@ dog"),
        "line_ending": LINES,
        "c0_control": framed([*span(0, 31), "\x7f"], "a@dog", "@", "d@'s"),
        "c1_control": framed(span(0x80, 0x9F), "a@dog", "caf@ x"),
        "invisible": framed(INVISIBLE, "a@dog", "@ x @@"),
        "emoji": framed(EMOJI, "@", "a dog @!", "go@go"),
        "combining": framed(COMBINING, "@", "a@b"),
        "ligature": framed(LIGATURES, "o@ce", "@"),
        "width": framed(WIDTHS, "a @b"),
        "quote": framed(QUOTES, "it@s a dog", "@hello@", "dogs@ 'tis"),
        "entity": framed(ENTITIES, "@", "a@b"),
        "nested_entity": [nested(text, depth) for text in ENTITIES[:70] for depth in (1, 2, 3)],
        "entity_in_markup": framed(ENTITIES[:12], "<@>", "@\n<b>@", "<\n@"),
        "special_literal": [*framed(LITERALS, *LITERAL_FRAMES), *framed(BROKEN_LITERALS, "@", "a @ b", "!@")],
        "contraction": framed(CONTRACTIONS, "it@", "IT@ ok", "@", "1@ !@"),
        "number": framed(NUMBERS, "@", "a@b"),
        "script": SENTENCES,
        "case": framed(CASES, "@", "a@ @b"),
        "math": framed(MATH, "@", "a@1"),
        "edge_code_point": framed(EDGES, "a@b", "1@ @", "!@!"),
        "code": CODE,
        "long_word": long_words(),
        "length": lengths(),
        "terminal_escape": ESCAPES,
        "mojibake": mojibake(),
    }
    return {**made, "mixture": mixtures(made, 250)}


def lines() -> str:
    rows = ({"class": name, "text": text} for name, texts in classes().items() for text in dict.fromkeys(texts))
    return "".join(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    PATH.write_text(lines(), encoding="ascii", newline="\n")
