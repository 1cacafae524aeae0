"""Sessions of the page without a copy of all its components each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr


@dataclass(frozen=True)
class LeanBlocks:
    """What Gradio reads of a page when a session begins, without the components.

    It copies the settings of each of them into every session, for links that bring a state back (`gr.DeepLinkButton`),
    which this page has not: half a megabyte a session, of which it keeps 10,000, and 20 ms before a caller's first
    answer. What a session changes is still noted.
    """

    page: gr.Blocks
    blocks: tuple[()] = ()

    @property
    def default_config(self) -> Any:
        """The components and events that sessions share until they change them."""
        return self.page.default_config


def keep_sessions_lean(page: gr.Blocks) -> None:
    """Let the sessions of a mounted page begin without copies."""
    page.state_holder.blocks = LeanBlocks(page)
