"""Attention for many sequences in one forward pass: their new tokens lie packed in a row, each looks at its own past.

transformers' models take an attention function by name (`AttentionInterface`) and hand it what the caller of the model
gave. So a `Pack` says which part of the row belongs to which sequence, and for each part the function adds the keys and
values to that sequence's cache and calls transformers' own SDPA, or for a single token torch's: a sequence is computed
as if it were alone, without padding, masks between sequences, or copies of what was computed before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "packed_sdpa"
GROWTH = 256  # tokens; a longer cache is copied once in so many
FAST_ROWS = 4  # Products of two or three rows in 32 bits take a CPU twice as long as those of four.
SAMPLE = 12  # tokens

log = logging.getLogger(__name__)


class TokenCache:
    """Keys and values of one sequence, layer by layer, each (1, heads, capacity, size); the first `length` are whole.

    What a forward pass wrote counts only once the caller raises `length`, so a pass that failed leaves no trace.
    """

    def __init__(self, reserve: int = 0) -> None:
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._reserve = reserve
        self.length = 0
        self.capacity = 0
        self.nbytes = 0

    def growth(self, new: int) -> int:
        """Return for how many tokens more memory is needed to add `new` ones."""
        return max(0, self._capacity_for(self.length + new) - self.capacity) if self.length + new > self.capacity else 0

    def extend(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor, past: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens' keys and values (1, heads, new, size) after `past`; return those of all tokens."""
        end = past + keys.shape[2]
        held = self._layers.get(layer)
        if held is None or held[0].shape[2] < end:
            self.capacity = self._capacity_for(end)
            before = held[0].nbytes + held[1].nbytes if held else 0
            held = self._layers[layer] = (
                _grown(held and held[0], keys, self.capacity),
                _grown(held and held[1], values, self.capacity),
            )
            self.nbytes += held[0].nbytes + held[1].nbytes - before
        held[0][:, :, past:end] = keys
        held[1][:, :, past:end] = values
        return held[0][:, :, :end], held[1][:, :, :end]

    def copy(self, length: int, reserve: int) -> TokenCache:
        """Return a cache of its own with the first `length` tokens."""
        other = TokenCache(reserve)
        for layer, (keys, values) in self._layers.items():
            other.extend(layer, keys[:, :, :length], values[:, :, :length], 0)
        other.length = length
        return other

    def _capacity_for(self, tokens: int) -> int:
        return -(-max(tokens, self._reserve) // GROWTH) * GROWTH


def _grown(held: torch.Tensor | None, like: torch.Tensor, capacity: int) -> torch.Tensor:
    grown = like.new_empty((1, like.shape[1], capacity, like.shape[3]))
    if held is not None:
        grown[:, :, : held.shape[2]] = held
    return grown


class Part:
    """The new tokens of one sequence within a pack: from `start` on, `count` of them."""

    def __init__(self, cache: TokenCache, start: int, count: int) -> None:
        self.cache, self.start, self.count = cache, start, count
        self.past = cache.length
        self._masks: dict[tuple[int | None, torch.device], torch.Tensor | None] = {}

    def of(self, packed: torch.Tensor) -> torch.Tensor:
        """Return this sequence's part of a row (1, heads, row, size)."""
        return packed if packed.shape[2] == self.count else packed[:, :, self.start : self.start + self.count]

    def mask(self, window: int | None, first: int, device: torch.device) -> torch.Tensor | None:
        """Return who may look at whom (1, 1, count, keys from `first` on); `None` where SDPA's own rule is enough."""
        if (window, device) not in self._masks:
            self._masks[window, device] = self._mask(window, first, device)
        return self._masks[window, device]

    def _mask(self, window: int | None, first: int, device: torch.device) -> torch.Tensor | None:
        narrow = window is not None and self.count > window
        if self.count == 1 or (self.past == 0 and not narrow):
            return None
        places = torch.arange(first, self.past + self.count, device=device)
        own = torch.arange(self.past, self.past + self.count, device=device)[:, None]
        mask = places <= own
        if window is not None:
            mask &= places > own - window
        return mask[None, None]


class Pack:
    """What one forward pass computes. `check` is called before each layer's attention and may raise to end the pass."""

    def __init__(self, parts: Sequence[Part], check: Callable[[], None] = lambda: None) -> None:
        self.parts = parts
        self.check = check
        self.windows: set[int] = set()


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pack: Pack,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each part of a pack; query (1, heads, row, size), returns (1, row, heads, size).

    Raises ValueError for kinds of attention that SDPA does not know.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if others.get(name) is not None:
            raise ValueError(f"packed attention has no {name}")
    pack.check()
    if sliding_window is not None:
        pack.windows.add(sliding_window)
    pieces = []
    for part in pack.parts:
        asked, new_keys, new_values = (part.of(packed) for packed in (query, key, value))
        keys, values = part.cache.extend(module.layer_idx, new_keys, new_values, part.past)
        if part.past == 0:  # The same numbers, but close together in memory.
            keys, values = new_keys, new_values
        first = 0 if sliding_window is None else max(0, part.past + 1 - sliding_window)
        if first:
            keys, values = keys[:, :, first:], values[:, :, first:]
        if part.count == 1:
            pieces.append(_attend_alone(asked, keys, values, scaling))
            continue
        mask = part.mask(sliding_window, first, query.device)
        pieces.append(sdpa_attention_forward(module, asked, keys, values, mask, scaling=scaling)[0])
    if padding := query.shape[2] - pack.parts[-1].start - pack.parts[-1].count:
        pieces.append(pieces[0].new_zeros((1, padding, *pieces[0].shape[2:])))
    return (torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]), None


def _attend_alone(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """Attend with one token (1, heads, 1, size) to all keys.

    Heads that share keys are computed as rows of one: in 16 bits, at 1,000 tokens, five times as fast on a processor,
    whose kernel is slow with one row. In 32 bits it is not.
    """
    heads, shared = query.shape[1], keys.shape[1]
    if query.dtype == torch.float32 and query.device.type == "cpu":
        found = scaled_dot_product_attention(query, keys, values, scale=scaling, enable_gqa=heads != shared)
    else:
        grouped = query.view(1, shared, heads // shared, query.shape[3])
        found = scaled_dot_product_attention(grouped, keys, values, scale=scaling)
    return found.reshape(1, 1, heads, found.shape[3])


class Work(NamedTuple):
    """What a forward pass does for one sequence: its new tokens, its cache, and at how many last places to predict."""

    tokens: Sequence[int]
    cache: TokenCache
    places: int


def forward(model: Any, works: Sequence[Work], check: Callable[[], None] = lambda: None) -> list[torch.Tensor]:
    """Compute the new tokens of each sequence; return for each the logits (places, vocabulary) in 32 bits.

    Raises what the model raises, and `check`, which is called before each layer's attention. The caches keep their
    lengths: the caller raises them for what is to stay.
    """
    return _forward(model, works, Pack(_parts(works), check))


def _forward(model: Any, works: Sequence[Work], pack: Pack) -> list[torch.Tensor]:
    tokens = [token for work in works for token in work.tokens]
    positions = [place for part in pack.parts for place in range(part.past, part.past + part.count)]
    places = [
        place
        for work, part in zip(works, pack.parts, strict=True)
        for place in range(part.start + part.count - work.places, part.start + part.count)
    ]
    padding = [0] * (FAST_ROWS - len(tokens)) if model.device.type == "cpu" and 1 < len(tokens) < FAST_ROWS else []
    wanted = torch.tensor(places, dtype=torch.long, device=model.device)
    keeps = {"logits_to_keep": wanted} if model._supports_logits_to_keep() else {}
    logits = model(
        input_ids=torch.tensor([tokens + padding], device=model.device),
        position_ids=torch.tensor([positions + padding], device=model.device),
        use_cache=False,
        pack=pack,
        **keeps,
    ).logits
    chosen = logits[0] if keeps else logits[0, wanted]
    return list(chosen.float().split([work.places for work in works]))


def _parts(works: Sequence[Work]) -> list[Part]:
    parts, start = [], 0
    for work in works:
        parts.append(Part(work.cache, start, len(work.tokens)))
        start += len(work.tokens)
    return parts


def takes_packs(model: Any, config: Any) -> int:
    """Let `model` compute packs, if it can; return how many bytes a token's keys and values take, or 0 if it cannot.

    A model can whose attention is transformers' own SDPA by name and whose predictions are then the same; otherwise
    it is left as it was. This computes a few tokens, which also brings the weights into memory.
    """
    if model.config._attn_implementation != "sdpa" or not model.is_backend_compatible() or _stretches(config):
        return 0
    if getattr(config, "attention_chunk_size", None):  # It is in the mask alone, which a few tokens do not show.
        return 0
    sequences = [[token % config.vocab_size for token in range(start, start + SAMPLE)] for start in (11, 60)]
    model.set_attn_implementation("sdpa")
    expected = model(input_ids=torch.tensor(sequences, device=model.device), use_cache=False).logits[:, -1].float()
    try:
        model.set_attn_implementation(NAME)
        caches = [TokenCache() for _ in sequences]
        begun = [Work(tokens[:-1], cache, 0) for tokens, cache in zip(sequences, caches, strict=True)]
        pack = Pack(_parts(begun))
        _forward(model, begun, pack)
        for cache in caches:
            cache.length = SAMPLE - 1
        ended = [Work(tokens[-1:], cache, 1) for tokens, cache in zip(sequences, caches, strict=True)]
        found = torch.cat(forward(model, ended))
        window = getattr(config, "sliding_window", None)
        if _alike(found, expected, model.dtype) and (window is None or window in pack.windows):
            return caches[0].nbytes // caches[0].capacity
    except Exception as error:
        log.info("%s does not take packs: %s", type(model).__name__, error)
    model.set_attn_implementation("sdpa")
    return 0


def _stretches(config: Any) -> bool:
    """Say whether positions mean something else in longer texts, so that neighbours would change each other's."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    return any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


def _alike(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


AttentionInterface.register(NAME, packed_attention)
