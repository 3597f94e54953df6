"""Postgres stops answering at a chosen statement of a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memsync.stores.postgres import Session

if TYPE_CHECKING:
    import pytest


class Stop(Exception):
    """Stands for a connection that fails."""


@dataclass
class Stopping:
    """Raises Stop in place of the statement with the number `at` (from 1); 0 is none.

    `ran` are the statements so far, the stopped one included.
    """

    at: int = 0
    ran: list[str] = field(default_factory=list)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch the statements of every session."""
        real = Session._execute

        def execute(session: Session, text: str, params: dict[str, Any]) -> Any:
            # A new connection of the pool pins its settings, at any time.
            if "set_config" not in text:
                self.ran.append(text)
                if len(self.ran) == self.at:
                    raise Stop
            return real(session, text, params)

        monkeypatch.setattr(Session, "_execute", execute)
