"""What clients may be called."""

from __future__ import annotations

import unicodedata

from fedui.errors import DomainError, ErrorCode

MAX_LENGTH = 63


class NameRefused(DomainError):
    """A name that could not be read aloud, or that would mislead on a screen or in a terminal."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, detail: str) -> None:
        super().__init__(
            detail,
            hint=f"Use 1 to {MAX_LENGTH} letters, digits, spaces, dots, hyphens, underscores; a letter or digit first.",
        )


def cleaned(name: str) -> str:
    """`name` in Unicode's composed form, without spaces around it. Raises `NameRefused`.

    Letters of all scripts are welcome. Control and bidirectional characters, by which a name can pose as another, are
    not.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not name or len(name) > MAX_LENGTH:
        raise NameRefused(f"A client's name has 1 to {MAX_LENGTH} characters, not {len(name)}.")
    if refused := [character for character in name if not _allowed(character)]:
        raise NameRefused(f"A client's name can't have the character {refused[0]!a}.")
    if not name[0].isalnum():
        raise NameRefused(f"A client's name can't begin with {name[0]!a}.")
    return name


def _allowed(character: str) -> bool:
    return character in " ._-" or unicodedata.category(character) in {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd"}
