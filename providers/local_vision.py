"""Models of transformers that see: which folders hold one, and how pictures become part of their prompt.

Source: transformers' documentation of multimodal chat templates,
https://huggingface.co/docs/transformers/chat_templating_multimodal
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from providers.errors import MissingPackage, ModelNotFound, Rejected
from providers.local_folders import ModelFolder
from providers.sentences import say
from providers.types import Image, Message

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as Picture

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
NEEDED = re.compile(r"torchvision|num2words", re.I)  # By some processors, such as Qwen-VL's and SmolVLM's.
MOST_PIXELS = 50_000_000  # A few kilobytes can stand for a picture that fills the memory.


def sees(folder: ModelFolder) -> bool:
    """Say whether a folder holds a model for pictures and text, with what it needs to read pictures."""
    has_eyes = isinstance(folder.config.get("vision_config"), dict)
    return has_eyes and any((folder.path / name).is_file() for name in PROCESSOR_FILES)


class Sight:
    """The processor of a model that sees: it formats conversations with the pictures in them."""

    def __init__(self, folder: ModelFolder) -> None:
        """Read the processor. Raises MissingPackage or ModelNotFound."""
        from transformers import AutoProcessor

        name = folder.path.name
        try:
            self._processor = AutoProcessor.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True)
        except Exception as error:
            if package := NEEDED.search(str(error)):
                raise MissingPackage(
                    say("The model in {folder} needs the package {package}.", folder=name, package=package[0].lower()),
                    provider="transformers",
                    hint=say("Install it: pip install {package}", package=package[0].lower()),
                ) from error
            raise ModelNotFound(
                say("The model in {folder} has no processor for pictures that can be read.", folder=name),
                provider="transformers",
                hint=say("Download the model again, with its preprocessor_config.json."),
            ) from error
        if not self._processor.chat_template:
            raise ModelNotFound(
                say("The model in {folder} sees, but has no chat format of its own.", folder=name),
                provider="transformers",
                hint=say("Choose one that is made for conversations, as those named Instruct or Chat are."),
            )

    def prompt(self, messages: Sequence[Message], device: torch.device, dtype: torch.dtype) -> Any:
        """Return input_ids (1, tokens), attention_mask and what the model's eyes read, on `device`.

        Raises Rejected for a picture that cannot be read; whatever the template raises is raised as it is.
        """
        conversation = [
            {
                "role": message.role,
                "content": [
                    *({"type": "image", "image": _decoded(image)} for image in message.images),
                    {"type": "text", "text": message.content},
                ],
            }
            for message in messages
        ]
        return self._processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(device, dtype)


def _decoded(image: Image) -> Picture:
    """Return the pixels, upright and without transparency; of an animation the first picture."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with Pillow.open(io.BytesIO(image.data), formats=("PNG", "JPEG", "GIF", "WEBP")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise Rejected(
                    say("A picture may have at most {count} million pixels.", count=MOST_PIXELS // 1_000_000),
                    provider="transformers",
                    hint=say("Make it smaller."),
                )
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise Rejected(
            say("This is no picture that models can read."),
            provider="transformers",
            hint=say("Send a PNG, JPEG, WebP or GIF."),
        ) from error
