"""What can go wrong. Every error has a ``code`` that is never renamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class RingmasterError(Exception):
    """The base of all errors of this package."""

    code: str = "error"


class Problem(RingmasterError):
    """A node answered that it does not, cannot or will not do it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.code = str(document.get("code", "unknown"))
        self.status = int(document.get("status", 0))
        self.detail = str(document.get("detail", ""))
        super().__init__(f"{self.code}: {self.detail}")

    @staticmethod
    def of(document: Mapping[str, Any]) -> Problem:
        return (LockHeld if document.get("code") == LockHeld.code else Problem)(document)

    def may_pass(self) -> bool:
        """Whether the same request may well be answered otherwise soon, or by another node."""
        return self.status >= 500 or self.code in ("overloaded", "request_timeout")


class LockHeld(Problem):
    """Others hold the lock, and the wait has passed."""

    code = "lock_held"

    @property
    def holder(self) -> Mapping[str, Any] | None:
        """Who has held it longest: ``owner``, ``token``, ``expires_in_ms`` and more."""
        return self.document.get("holder")


class LockLost(RingmasterError):
    """The lock is not held any more: it was taken away, or its lease could not be renewed in time."""

    code = "lock_lost"


class Unreachable(RingmasterError):
    """No node answered. What was sent may have taken effect all the same."""

    code = "unreachable"

    def __init__(self, attempts: Sequence[tuple[str, str]]) -> None:
        self.attempts = attempts
        tried = ", ".join(f"{url} ({reason})" for url, reason in attempts)
        super().__init__(f"no node answers: {tried}")
