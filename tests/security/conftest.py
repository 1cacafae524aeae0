"""What the security tests share."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest


@pytest.fixture
def guest(guest_url: str) -> Iterator[httpx.Client]:
    """Plain HTTP to the application for visitors."""
    with httpx.Client(base_url=guest_url, timeout=60) as client:
        yield client
