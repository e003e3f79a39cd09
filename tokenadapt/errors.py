"""What can go wrong, said so that the reader knows what to do next.

One root and few children: the exit code is all that callers distinguish.
"""

from __future__ import annotations


class TokenAdaptError(Exception):
    """A run failed: `message` says what was wrong with which input, `hint` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class RequestError(TokenAdaptError):
    """The request itself was wrong: an option, a path or an input that can never work."""

    exit_code = 2


class MissingExtraError(RequestError):
    """An optional library is needed and absent; the hint is the pip line that brings it."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            f"Install it with: pip install 'tokenadapt[{extra}]'",
        )


class VerificationError(TokenAdaptError):
    """A written or given checkpoint failed a check."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, turned into an exception so that every `finally` runs as it does for Ctrl-C."""
