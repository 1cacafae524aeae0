"""Who asks. Until there are accounts: one local user who may do everything, or visitors, each with a session."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import NotAllowed
from core.settings import Settings
from providers.sentences import say


@dataclass(frozen=True)
class User:
    """A person, by the name under which their rows are kept."""

    name: str
    may_train: bool = True


LOCAL = User("local")


def current_user(settings: Settings, session: str) -> User:
    """Return who speaks in `session`: visitors see and change only what their own session made."""
    return LOCAL if settings.auth == "off" else User(f"guest-{session[:50]}", may_train=False)


def check_may_manage(settings: Settings) -> None:
    """Raise NotAllowed where others than the owner may ask: what is loaded, fetched and deleted is for all of them."""
    if settings.auth != "off":
        raise NotAllowed(
            say("Visitors may choose among the models here, but not load, download or delete them."),
            say("Run simpleIA on your own machine to manage its models."),
        )


def check_may_train(user: User) -> None:
    """Raise NotAllowed for a person who may not make datasets, runs and models here."""
    if not user.may_train:
        raise NotAllowed(
            say("Visitors may rate and correct answers, but not train models here."),
            say("Run simpleIA on your own machine to train on your feedback."),
        )
