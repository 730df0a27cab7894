"""How functions become machine code, by numba. It is not imported before it is wanted: it is large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*signatures: str) -> Callable[[Function], Function]:
    """For these signatures now, or for whichever are called."""

    def decorate(function: Function) -> Function:
        wanted = list(signatures) or None
        machine_code: Any
        try:
            machine_code = numba.njit(wanted, nogil=True, cache=True)(function)
        except RuntimeError:  # nowhere to keep the machine code: a read-only installation without a home
            machine_code = numba.njit(wanted, nogil=True)(function)
        return cast("Function", machine_code)

    return decorate


def vector(dtype: str, *, readonly: bool = False) -> str:
    """In numba's notation. What is only read may be read-only: those that are views of an upload are."""
    return f"Array({dtype}, 1, 'C', {readonly})"
