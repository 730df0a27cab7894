"""What a server says, fit to be shown: it must not give orders to its reader's terminal."""

from __future__ import annotations


def printable(words: str, also: str = "") -> str:
    """`also`: characters that may stay, such as line ends."""
    return "".join(c if c.isprintable() or c in also else "\N{REPLACEMENT CHARACTER}" for c in words)
