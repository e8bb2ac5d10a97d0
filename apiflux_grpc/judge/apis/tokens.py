"""How many tokens a request takes, and a text of so many.

The rule: a token is four bytes of text, and never more tokens are counted than a client would count beforehand: one for
four bytes of its whole body, and the most that it lets be answered. How long an answer is, is drawn from the request's
seed. https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them
"""

from typing import Any, Final

from apiflux_grpc.judge.apis.api import Asked, Usage

BYTES: Final = 4  # of a token
LONGEST: Final = 500  # tokens of an answer: more only makes answers larger
WORDS: Final = "A judge says this, word for word. " * (LONGEST * BYTES // 34 + 1)


def tokens_of(value: Any) -> int:
    """Tokens of all texts in a JSON value, at least 1."""
    return max(1, -(-_bytes(value) // BYTES))


def _bytes(value: Any) -> int:
    total, left = 0, [value]  # a stack of our own: a body may be nested deeper than functions may
    while left:
        value = left.pop()
        if isinstance(value, str):
            total += len(value.encode(errors="replace"))
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return total


def usage_of(asked: Asked, prompt: Any, most: Any) -> Usage:
    """What a call takes that may be answered with `most` tokens.

    If it doesn't say, the whole takes no more than its body has bytes for.
    """
    given = tokens_of(prompt)
    if not isinstance(most, int) or most < 1:
        most = asked.size // BYTES - given
    return Usage(given, 1 + asked.seed % max(1, min(most, LONGEST)))


def text_of(tokens: int) -> str:
    """A text that takes so many tokens, at most LONGEST."""
    return WORDS[: tokens * BYTES]
