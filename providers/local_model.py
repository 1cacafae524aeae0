"""One transformers model in memory: its prompt format, and an answer token by token on the thread that calls it."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)

from providers.answer_writer import AnswerWriter
from providers.batch_row import AnswerCancelled as AnswerCancelled
from providers.batch_row import Row
from providers.batching import BatchEngine
from providers.chat_templates import plain_template
from providers.deadline import deadline
from providers.errors import ContextTooLong, ModelNotFound, ProviderError, UpstreamFailure
from providers.generating import GenerateEngine
from providers.loading import (
    LoadPlan,
    estimate,
    first_line,
    folder_sizes,
    load_weights,
    make_plan,
    measuring,
    not_loadable,
    out_of_memory,
)
from providers.local_folders import ModelFolder
from providers.local_vision import Sight, sees
from providers.machine import memory_of
from providers.packed_attention import takes_packs
from providers.prompt_lookup import PromptLookup
from providers.sampling import LogprobTap, logits_processors
from providers.schema import SchemaGrammar
from providers.sentences import say
from providers.text_stream import TextStream
from providers.types import (
    ChatRequest,
    EngineFigures,
    EngineLimits,
    Finished,
    FinishReason,
    LoadedModel,
    LoadOptions,
    Message,
    Notice,
    Queued,
    StreamEvent,
    Usage,
)

TEMPLATE_SECONDS = 10.0
CONVERSATIONS_SHARE = 0.3  # of the memory that is free once the weights are there, and promised to no other model
ALLOCATOR_WORDS = ("not enough memory", "can't allocate memory")


class LocalModel:
    """A model, its tokenizer and its engine. `answer` may run on many threads at once."""

    def __init__(
        self,
        name: str,
        folder: ModelFolder,
        options: LoadOptions,
        cancelled: threading.Event | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        """Load the weights and compute a first few tokens; takes seconds.

        Raises ModelNotFound, OutOfMemory, Rejected or Cancelled.
        """
        start, cancelled = time.perf_counter(), cancelled or threading.Event()
        self.folder, self.options = folder, options
        sizes = folder_sizes(folder)
        plan = make_plan(folder, sizes, options)
        self._tokenizer = _load_tokenizer(folder)
        self._sight = Sight(folder) if sees(folder) else None
        with measuring(plan.device) as grown:
            self._model = load_weights(folder, plan, cancelled)
            measured_bytes = grown()
        self._stop: tuple[str, ...] = ()
        notices: tuple[Notice, ...] = ()
        if not self._tokenizer.chat_template and not self._sight:
            self._tokenizer.chat_template, self._stop = plain_template(folder.config)
            notices = (Notice(say("This model has no chat format of its own; a plain one is used.")),)
        self._end_tokens = _end_tokens(self._model, self._tokenizer)
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            bos_token_id=self._tokenizer.bos_token_id,
            eos_token_id=sorted(self._end_tokens) or None,
            pad_token_id=self._tokenizer.pad_token_id or min(self._end_tokens, default=0),
        )
        self._schema_grammar: SchemaGrammar | None = None
        self.adapted: dict[Path, LocalModel] = {}
        self._weights = object()
        limits = limits or EngineLimits()
        self._lookup = limits.prompt_lookup
        self._engine = _engine_for(self._model, plan, folder, limits, bool(self._sight))
        self.info = LoadedModel(
            name=name,
            device=plan.device,
            precision=plan.precision,
            memory_bytes=self._model.get_memory_footprint(),
            context_length=plan.context_length,
            load_seconds=time.perf_counter() - start,
            notices=notices,
            quantization=plan.quantization,
            measured_bytes=measured_bytes,
            estimated_bytes=estimate(plan, sizes).weights_bytes,
            loaded_at=time.time(),
            reason=plan.reason,
            batched=isinstance(self._engine, BatchEngine),
        )

    def with_adapter(self, adapter: Path) -> LocalModel:
        """Return this model with the LoRA weights of a folder: modules of its own around the same weight tensors.

        PEFT changes modules in place and is not safe on several threads; so each adapter has its own tree of modules,
        and the base's is never touched. Raises ModelNotFound.
        """
        from peft import PeftModel

        start = time.perf_counter()
        shared = {id(tensor): tensor for tensor in (*self._model.parameters(), *self._model.buffers())}
        adapted = copy.copy(self)
        adapted.adapted = {}
        adapted._weights = object()
        try:
            modules = copy.deepcopy(self._model, shared)
            adapted._model = PeftModel.from_pretrained(modules, adapter, local_files_only=True).eval().get_base_model()
        except Exception as error:
            raise ModelNotFound(
                say(
                    "The adapter in {folder} cannot be loaded: {reason}.",
                    folder=adapter.name,
                    reason=first_line(error),
                ),
                provider="transformers",
                hint=say("Check that its files are whole; if not, train it again."),
            ) from error
        own = (tensor for tensor in adapted._model.parameters() if id(tensor) not in shared)
        adapted.info = replace(
            self.info,
            memory_bytes=sum(tensor.numel() * tensor.element_size() for tensor in own),
            load_seconds=time.perf_counter() - start,
            measured_bytes=None,
            estimated_bytes=None,
            loaded_at=time.time(),
        )
        return adapted

    @property
    def _grammar(self) -> SchemaGrammar:
        if self._schema_grammar is None:
            self._schema_grammar = SchemaGrammar(self._tokenizer, self._end_tokens)
        return self._schema_grammar

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Count the tokens of the prompt that `answer` would read, chat template included."""
        return int(self._prompt(messages)["input_ids"].shape[1])

    def answer(self, request: ChatRequest, emit: Callable[[StreamEvent], None], cancelled: threading.Event) -> None:
        """Generate on this thread and hand each event to `emit`, `Finished` last.

        Raises AnswerCancelled within one layer of `cancelled` being set, and the errors of `providers.errors`.
        """
        prompt = self._prompt(request.messages)
        prompt_length = prompt["input_ids"].shape[1]
        room = self.info.context_length - prompt_length
        if room < 1:
            raise ContextTooLong(
                say(
                    "The prompt has {tokens} tokens, and this model reads at most {limit}.",
                    tokens=prompt_length,
                    limit=self.info.context_length,
                ),
                provider="transformers",
                hint=say("Shorten it, or choose a model with a longer context."),
            )
        wanted = request.parameters.max_tokens or room
        text = TextStream(self._tokenizer.backend_tokenizer, (*request.parameters.stop, *self._stop))
        tap = None if request.parameters.logprobs is None else LogprobTap(request.parameters.logprobs)
        writer = AnswerWriter(text, self._end_tokens, emit, tap)
        processors = logits_processors(request.parameters, prompt_length, self._model.device)
        if request.parameters.json_schema is not None:
            processors.insert(0, self._grammar.follow(request.parameters.json_schema))
        if tap:
            processors.insert(0, tap)
        try:
            self._compute(prompt, min(wanted, room), processors, writer, lambda place: emit(Queued(place)), cancelled)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise out_of_memory(request.model) from error
        except (AnswerCancelled, ProviderError):
            raise
        except Exception as error:
            if any(words in str(error) for words in ALLOCATOR_WORDS):
                raise out_of_memory(request.model) from error
            raise UpstreamFailure(
                say("The model {model} failed while it answered.", model=request.model),
                provider="transformers",
                hint=say("Ask again; if it happens again, the server's log says more."),
            ) from error
        writer.flush()
        reason: FinishReason = "stop" if writer.stopped else "length"
        if reason == "length" and room < wanted:
            emit(
                Notice(say("The answer ended at the model's limit of {limit} tokens.", limit=self.info.context_length))
            )
        emit(Finished(reason, Usage(prompt_length, writer.tokens)))

    def figures(self) -> EngineFigures:
        """Say what the engine does now."""
        return self._engine.figures()

    def close(self) -> None:
        """Forget the conversations; what is being answered goes on to its end."""
        self._engine.close()

    def _compute(
        self,
        prompt: Any,
        limit: int,
        processors: LogitsProcessorList,
        writer: AnswerWriter,
        place: Callable[[int], None],
        cancelled: threading.Event,
    ) -> None:
        if isinstance(self._engine, GenerateEngine):
            self._engine.answer(self._model, self._weights, prompt, limit, processors, writer, place, cancelled)
            return
        row = Row(
            model=self._model,
            weights=self._weights,
            tokens=prompt["input_ids"][0].tolist(),
            limit=limit,
            processors=processors,
            take=writer.take,
            place=place,
            cancelled=cancelled,
            lookup=PromptLookup() if self._lookup else None,
        )
        self._engine.answer(row)

    def _prompt(self, messages: Sequence[Message]) -> Any:
        """Return input_ids and attention_mask, each (1, tokens), on the model's device."""
        try:
            with deadline(TEMPLATE_SECONDS):  # A template is the model maker's code.
                if self._sight:
                    return self._sight.prompt(messages, self._model.device, self._model.dtype)
                prompt = self._tokenizer.apply_chat_template(
                    [{"role": message.role, "content": message.content} for message in messages],
                    add_generation_prompt=True,
                    return_dict=True,
                    return_tensors="pt",
                )
            return prompt.to(self._model.device)
        except ProviderError:
            raise
        except Exception as error:
            raise UpstreamFailure(
                say("This model's chat template cannot format the conversation."),
                provider="transformers",
                hint=say("Leave out the system prompt, or choose another model."),
            ) from error


def _engine_for(
    model: Any, plan: LoadPlan, folder: ModelFolder, limits: EngineLimits, sees: bool
) -> BatchEngine | GenerateEngine:
    available = memory_of(plan.device).available_bytes
    budget = int(CONVERSATIONS_SHARE * max(0, available - limits.promised_bytes))
    if sees:  # Its eyes may have more layers than what writes; and the same tokens may stand for other pictures.
        return GenerateEngine([model, model.get_decoder()], 0, limits.parallel, limits.waiting)
    try:
        with torch.inference_mode():
            token_bytes = takes_packs(model, model.config.get_text_config(decoder=True))
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(folder.path.name) from error
    except Exception as error:
        raise not_loadable(folder, error) from error
    if token_bytes:
        budget = max(budget, min(token_bytes * plan.context_length, available))  # One conversation was estimated.
        return BatchEngine(token_bytes, budget, limits.batched, limits.waiting)
    return GenerateEngine([model], budget, limits.parallel, limits.waiting)


def _load_tokenizer(folder: ModelFolder) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True)
        tokenizer.backend_tokenizer.get_vocab_size()
    except Exception as error:
        raise ModelNotFound(
            say("The model in {folder} has no tokenizer that can be read.", folder=folder.path.name),
            provider="transformers",
            hint=say("Download the model again, with its tokenizer.json."),
        ) from error
    return tokenizer


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    declared = model.generation_config.eos_token_id
    tokens = declared if isinstance(declared, list) else [declared]
    return frozenset(token for token in (*tokens, tokenizer.eos_token_id) if token is not None)
