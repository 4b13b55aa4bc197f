"""A text in many scripts, and every kind of tokenizer made from it."""

from __future__ import annotations

import pytest

from minigpt.tokenizers import Tokenizer, make_tokenizer

GREETINGS = [
    "Good morning, what a lovely day! It's 7:30, isn't it?",
    "Доброе утро, какой прекрасный день!",
    "Καλημέρα, τι όμορφη μέρα!",
    "おはようございます。いい天気ですね。",
    "早上好，今天天气真好。",
    "좋은 아침입니다, 날씨가 좋네요.",
    "صباح الخير، يا له من يوم جميل!",
    "בוקר טוב, איזה יום יפה!",
    "सुप्रभात, कितना सुंदर दिन है!",
    "காலை வணக்கம், என்ன அழகான நாள்!",
    "สวัสดีตอนเช้า วันนี้อากาศดีจัง",
    "დილა მშვიდობისა, რა მშვენიერი დღეა!",
    "Բարի լույս, ինչ գեղեցիկ օր է։",
    "እንደምን አደርክ፣ ምን ያማረ ቀን ነው!",
    "ᏏᏲ, ᎣᏍᏓ ᏑᎾᎴᎢ",
    "𐌲𐍉𐌳𐌰 𐌼𐌰𐌿𐍂𐌲𐌹𐌽",
    "Cafe\u0301, nai\u0308ve; 👩‍👩‍👧 🏳️‍🌈 and 🇺🇳",
    "def f(x):\n\tif x:\r\n        return x  # done\n\n\n",
    "wide\u3000space, thin\u2009space, no\u00a0break,\u2028line\x85next\x1cfile",
    "<|endoftext|> is ordinary text here, and so is <|im_start|>",
]
MANY_SCRIPTS = "\n".join(GREETINGS) * 2

SPECS = ["gpt2", "char", "byte", "bpe:600"]


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Tokenizer]:
    """One of each kind, by its spec."""
    return {spec: make_tokenizer(spec, [MANY_SCRIPTS]) for spec in SPECS}


@pytest.fixture(params=SPECS)
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    """Each of them in turn."""
    return tokenizers[request.param]


@pytest.fixture(scope="session")
def many_scripts() -> str:
    """The text the tokenizers were made from."""
    return MANY_SCRIPTS
