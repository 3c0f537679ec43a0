"""Errors. Every error has a stable ``code``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class RingmasterError(Exception):
    """The base class of all errors of this package."""

    code: str = "error"


class Problem(RingmasterError):
    """A node answered with a problem document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.code = str(document.get("code", "unknown"))
        self.status = int(document.get("status", 0))
        self.detail = str(document.get("detail", ""))
        super().__init__(f"{self.code}: {self.detail}")

    @staticmethod
    def of(document: Mapping[str, Any]) -> Problem:
        return (LockHeld if document.get("code") == LockHeld.code else Problem)(document)

    def is_transient(self) -> bool:
        """Whether the same request may succeed later, or at another node."""
        return self.status >= 500 or self.code in ("overloaded", "request_timeout")

    def is_in_doubt(self) -> bool:
        """Whether the request may have taken effect all the same."""
        return self.code in ("outcome_unknown", "request_timeout")


class LockHeld(Problem):
    """The wait has ended, and another owner holds the lock."""

    code = "lock_held"

    @property
    def holder(self) -> Mapping[str, Any] | None:
        """The longest holder: ``owner``, ``token``, ``expires_in_ms`` and more."""
        return self.document.get("holder")


class LockLost(RingmasterError):
    """The lock is no longer held: it was released by an operator, or its lease was not renewed in time."""

    code = "lock_lost"


class Unreachable(RingmasterError):
    """No node answered. A change that was sent may have taken effect."""

    code = "unreachable"

    def __init__(self, attempts: Sequence[tuple[str, str]]) -> None:
        self.attempts = attempts
        tried = ", ".join(f"{url} ({reason})" for url, reason in attempts)
        super().__init__(f"no node answers: {tried}")
