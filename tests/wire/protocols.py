"""Every protocol that the scripted server speaks, by the provider's key."""

from __future__ import annotations

from tests.wire.anthropic import AnthropicWire
from tests.wire.gemini import GeminiWire
from tests.wire.ollama import OllamaWire
from tests.wire.openai import HuggingFaceWire, OpenAIWire
from tests.wire.protocol import WireProtocol

PROTOCOLS: dict[str, type[WireProtocol]] = {
    "openai": OpenAIWire,
    "anthropic": AnthropicWire,
    "gemini": GeminiWire,
    "huggingface": HuggingFaceWire,
    "ollama": OllamaWire,
}
