"""Random models of a few kilobytes, made on the spot: they write nonsense, quickly and reproducibly."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STARTER = Path(__file__).parent.parent / "models" / "starter"
SEEING_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS = 2
SLOW_LAYERS = 24


def make_chat_model(folder: Path, seed: int = 0, context_length: int = 2048) -> Path:
    """Save a Llama of 0.1 million weights whose tokens are single bytes, with a chat template."""
    return _make_llama(folder, seed, num_hidden_layers=LAYERS, max_position_embeddings=context_length)


def make_mergeable_model(
    folder: Path, seed: int = 0, layers: int = LAYERS, context_length: int = 2048, samples: bool = False
) -> Path:
    """Save a Llama of 0.3 million weights with the starter's tokenizer: GGUF files hold one with merges only.

    It writes plain letters only, and its choices are clear enough to survive llama.cpp's other rounding. `samples`
    says so in its generation_config.json, which some servers obey.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config: Any = LlamaConfig(
        vocab_size=1792,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=context_length,
        initializer_range=0.3,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=3,
    )
    model = LlamaForCausalLM(config)
    tokens: list[str] = AutoTokenizer.from_pretrained(STARTER).convert_ids_to_tokens(range(1792))
    plain = torch.tensor([bool(re.fullmatch("Ġ?[A-Za-z]+", token)) for token in tokens])
    with torch.no_grad():
        model.lm_head.weight *= 4 * plain[:, None]
    model.generation_config.do_sample = samples
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(STARTER / name, folder / name)
    return folder


def make_slow_model(folder: Path) -> Path:
    """Save a deep Llama: it reads a prompt of 6,000 bytes for seconds and never ends an answer by itself."""
    return _make_llama(
        folder, 0, ends=False, num_hidden_layers=SLOW_LAYERS, max_position_embeddings=16_384, hidden_size=128
    )


def make_heavy_model(folder: Path) -> Path:
    """Save a Llama of 0.8 billion weights, all nought, in bf16: it takes many seconds to load."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in LlamaForCausalLM(config).named_parameters()}
    tokenizer.save_pretrained(folder)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    weights = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def make_plain_model(folder: Path, dialogue: bool = False) -> Path:
    """Save a GPT-2 without a chat template; `dialogue` marks it as DialoGPT's config.json does."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _byte_tokenizer()
    tokenizer.chat_template = None
    torch.manual_seed(0)
    tasks = {"conversational": {"max_length": 1000}} if dialogue else {"text-generation": {"max_length": 50}}
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=64,
        n_layer=LAYERS,
        n_head=1,
        n_positions=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
        task_specific_params=tasks,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_seeing_model(folder: Path, seed: int = 0) -> Path:
    """Save a LLaVA with eyes of 3 layers, which see a picture of any size as 4 tokens, and with a processor."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = _byte_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    torch.manual_seed(seed)
    eyes = CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    writer = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config: Any = LlavaConfig(
        vision_config=eyes,
        text_config=writer,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
        vision_feature_layer=-2,
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight[[*tokenizer.all_special_ids]] = 0
        model.model.multi_modal_projector.linear_2.weight *= 40
    model.save_pretrained(folder)
    side = {"height": 28, "width": 28}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=SEEING_TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def make_adapter(run: Path, base: Path, base_name: str, seed: int = 0) -> Path:
    """Leave in `run` what a finished run leaves: an adapter that changes every answer of `base`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(run / "adapter-1")
    (run / "tuned.json").write_text(json.dumps({"base": base_name, "adapter": "adapter-1", "step": 1}))
    return run


def change_config(folder: Path, **changes: Any) -> None:
    """Write `changes` into the config.json of `folder`."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _make_llama(folder: Path, seed: int, hidden_size: int = 64, ends: bool = True, **sizes: int) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer()
    if not ends:
        tokenizer.eos_token = None
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_attention_heads=hidden_size // 64,
            num_key_value_heads=hidden_size // 64,
            initializer_range=0.3,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **sizes,
        )
    )
    with torch.no_grad():
        model.lm_head.weight[[*tokenizer.all_special_ids]] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    fast.chat_template = TEMPLATE
    return fast
