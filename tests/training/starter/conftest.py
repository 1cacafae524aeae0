"""The shipped starter's tokenizer, read once."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.training.starter.shipped import FOLDER


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)
