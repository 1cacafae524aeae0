"""Keys that people type: kept in memory for their session alone, and each for one address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from core.errors import InvalidRequest
from providers.sentences import say
from providers.types import ProviderInfo

MAX_SESSIONS = 10_000
LONGEST_KEY = 500
SHORTEST_KEY = 8


@dataclass(frozen=True)
class SessionKey:
    """A key, and the address that it is for: if the address changes, it is sent nowhere."""

    key: str = field(repr=False)
    base_url: str

    @property
    def shown(self) -> str:
        """What may be shown of it: its last four characters."""
        return f"…{self.key[-4:]}"


Keys = Mapping[str, SessionKey]
NO_KEYS: Keys = MappingProxyType({})


class SessionKeys:
    """The keys of the sessions used last, by the provider's name."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, dict[str, SessionKey]] = OrderedDict()

    def keep(self, session: str, provider: ProviderInfo, key: str) -> SessionKey:
        """Keep a key for a session; an earlier one for the same provider is replaced. Raises InvalidRequest."""
        key = key.strip()
        if not provider.base_url or not provider.key_variable:
            raise InvalidRequest(say("{provider} takes no key.", provider=provider.label))
        if not SHORTEST_KEY <= len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise InvalidRequest(say("This is no key."), say("Copy it again, whole and without spaces."))
        kept = self._sessions.setdefault(session, {})
        kept[provider.key] = SessionKey(key, provider.base_url)
        self._sessions.move_to_end(session)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return kept[provider.key]

    def of(self, session: str) -> Keys:
        """Return the keys of a session by provider."""
        return MappingProxyType(dict(self._sessions.get(session, {})))

    def forget(self, session: str, provider: str = "") -> None:
        """Forget the key for one provider, or all keys of the session."""
        if provider:
            self._sessions.get(session, {}).pop(provider, None)
        else:
            self._sessions.pop(session, None)
