"""A model that somebody wrote down: in the catalogue, `config/models.json`, or in a person's `DATA_DIR/config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

TYPES: Mapping[str, str] = {"huggingface": "huggingface", "claude": "anthropic", "google": "gemini"}
CLOUD = ("openai", "anthropic", "gemini", "huggingface")
KEYS: Mapping[str, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY", "CLAUDE_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
}

Words = Annotated[str, Field(max_length=400)]
Size = Literal["tiny", "small", "middle", "large"]
TINY, SMALL, MIDDLE = 1e9, 3e9, 9e9  # Weights; in 8 bits about as many bytes.


class ModelEntry(BaseModel):
    """A local model or one of a service. `parameters` are billions of weights; `path` is a folder, GGUF file or name.

    `type` is the service of one that is not local, "ollama" for one of Ollama's, and else only told.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    type: Annotated[str, Field(max_length=40, validation_alias=AliasChoices("type", "model_type"))] = ""
    local: bool = True
    path: Annotated[str, Field(max_length=1000)] | None = None
    context_length: Annotated[int, Field(gt=0)] | None = None
    quantization: Annotated[str, Field(max_length=40)] | None = None
    parameters: Annotated[float, Field(gt=0, lt=10_000)] | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,79}$")] | None = None
    license: Annotated[str, Field(max_length=60)] = ""
    languages: Annotated[str, Field(max_length=100)] = ""
    note: Words = ""
    note_es: Words = ""
    gated: bool = False
    download_bytes: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> ModelEntry:
        if not self.local and self.service not in CLOUD:
            raise ValueError(f"the type of a model that is not local is one of {', '.join(CLOUD)}")
        if self.api_key_env and (self.local or self.api_key_env not in KEYS[self.service]):
            raise ValueError(
                f"{self.api_key_env} is not the variable of {self.service or 'a local model'}; "
                "a service at another address is an entry of servers"
            )
        return self

    @property
    def service(self) -> str:
        """The provider that `type` names."""
        return TYPES.get(self.type, self.type)

    @property
    def model_id(self) -> str:
        """The id by which it is asked, loaded and downloaded."""
        if not self.local:
            return f"{self.service}/{self.path or self.name}"
        if self.service == "ollama":
            return f"ollama/{self.path or self.name}"
        place = self.path or self.name
        if place.endswith(".gguf"):
            return f"llama_cpp/{Path(place).expanduser().absolute()}"
        folder = Path(place).expanduser()
        return f"transformers/{folder.absolute() if folder.is_dir() else place}"

    @property
    def size(self) -> Size | None:
        """How much memory it asks for, roughly."""
        if not self.local or self.parameters is None:
            return None
        weights = self.parameters * 1e9
        return "tiny" if weights < TINY else "small" if weights < SMALL else "middle" if weights < MIDDLE else "large"
