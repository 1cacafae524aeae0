"""Which model each session chose. A session is one browser page or one API client, and knows nothing of the others."""

from __future__ import annotations

from collections import OrderedDict

MAX_SESSIONS = 10_000


class SessionModels:
    """Remembers the choices of the sessions used last."""

    def __init__(self) -> None:
        self._choices: OrderedDict[str, str] = OrderedDict()

    def choose(self, session: str, model_id: str) -> None:
        """Remember the choice of a session, and forget the one not heard of for longest when there are too many."""
        self._choices[session] = model_id
        self._choices.move_to_end(session)
        if len(self._choices) > MAX_SESSIONS:
            self._choices.popitem(last=False)

    def chosen(self, session: str) -> str:
        """Return the model id that the session chose; empty when it chose none."""
        return self._choices.get(session, "")
