"""The one translation of what storage cannot do into what the client is told: StorageError to ApiError.

What a verb can say better itself (a name that is taken, history that is gone) it says itself, before it comes to this.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NoReturn, TypeVar

from clusterling.machinery import errors
from clusterling.storage.store import Crowded, StorageError, TooLarge, UnknownOutcome

_T = TypeVar("_T")


async def translated(answer: Awaitable[_T]) -> _T:
    """The answer of the store. Raises ApiError where it has none."""
    try:
        return await answer
    except StorageError as error:
        refuse(error)


def refuse(error: StorageError) -> NoReturn:
    """Raises what the client is told."""
    match error:
        case TooLarge():
            raise errors.too_large(str(error)) from error
        case UnknownOutcome():
            raise errors.timeout("the store did not say whether the write was kept") from error
        case Crowded():
            raise errors.too_many_requests(f"{error}; please try again later") from error
        case _:
            raise errors.service_unavailable(f"the store cannot serve this now: {error}") from error
