"""Training the starter model, on a GPU if there is one, with a state that survives being killed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from training.starter.batches import make_batches
from training.starter.corpus import Corpus
from training.starter.skills import SPELLED
from training.starter.tokenizer import train_tokenizer
from training.starter.weights import Learner, Shape, build_model, save_model

_TOKENIZER_SAMPLE = 12_000
_WARM_UP, _STEADY_SHARE = 100, 0.6
PEAK_RATE = 4e-3
_KEEP_EVERY, _LOG_EVERY = 100, 20
_VALIDATION_SEED_OFFSET = 1_000_000
_VALIDATION_BATCHES = 16


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long to train and with what; `work` is where the state is kept, from which the same plan goes on.

    `begin` is the folder of an earlier starter, whose tokenizer, shape and weights are taken instead of new ones.
    Of its weights the share `kept` stays in what is saved. Source: Wortsman et al., "Robust fine-tuning of zero-shot
    models", 2022: the mean of both often answers better than either.
    `rate` is the highest learning rate; a model that goes on from an earlier one forgets less with a lower one.
    `scale` multiplies the rows of each step; `processes` write the text beside this one, which does it itself if 0.
    """

    output: Path
    work: Path
    steps: int
    threads: int
    seed: int = 1
    begin: Path | None = None
    kept: float = 0.0
    shape: Shape = Shape()
    rate: float = PEAK_RATE
    scale: int = 1
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A point of the loss curve; the loss is the mean since the point before."""

    step: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What one training measured, and on what."""

    machine: str
    parameters: int
    shape: Mapping[str, int]
    validation_loss: float
    curve: tuple[Progress, ...]


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on a sample of the corpus."""
    corpus = Corpus(seed)
    conversations = (corpus.conversation() for _ in range(_TOKENIZER_SAMPLE))
    return train_tokenizer(
        "\n".join(
            ["system", item.system or "", *(f"user\n{turn.question}\nassistant\n{turn.answer}" for turn in item.turns)]
        ).replace(SPELLED, "")
        for item in conversations
    )


def learning_rate(step: int, steps: int, peak: float = PEAK_RATE) -> float:
    """Rise during the warm-up, stay, then fall in a line to nothing.

    Source: Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024; the
    steady part can be made longer or shorter while it trains.
    """
    left = (steps - step) / (steps * (1 - _STEADY_SHARE))
    return peak * min(1.0, (step + 1) / _WARM_UP, left)


def train(plan: TrainingPlan) -> TrainingResult:
    """Train a model, or go on with one that was interrupted, and save it."""
    torch.set_num_threads(plan.threads)
    plan.work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(plan)
    torch.manual_seed(plan.seed)
    learner = Learner(_model(plan, tokenizer).to("cuda" if torch.cuda.is_available() else "cpu"))
    state = plan.work / "state.safetensors"
    begun = Progress(**learner.load(state)) if state.is_file() else Progress(0, 0.0, 0, 0.0)  # type: ignore[arg-type]
    curve = [point for point in read_curve(plan.work) if point.step <= begun.step]
    (plan.work / "curve.jsonl").write_text("".join(map(_line, curve)), encoding="utf-8")
    tokens, started = begun.tokens, time.monotonic() - begun.seconds
    losses: list[float] = []
    batches = make_batches(tokenizer, plan.seed, begun.step, plan.scale, plan.processes)
    bar = tqdm(islice(batches, plan.steps - begun.step), initial=begun.step, total=plan.steps, unit="step")
    for step, batch in enumerate(bar, begun.step + 1):
        losses.append(learner.step(batch, learning_rate(step - 1, plan.steps, plan.rate)))
        tokens += batch.input_ids.numel()
        if step % _LOG_EVERY == 0 or step == plan.steps:
            curve.append(Progress(step, sum(losses) / len(losses), tokens, time.monotonic() - started))
            losses.clear()
            bar.set_postfix(loss=f"{curve[-1].loss:.3f}")
            with (plan.work / "curve.jsonl").open("a", encoding="utf-8") as log:
                log.write(_line(curve[-1]))
        if step % _KEEP_EVERY == 0 or step == plan.steps:
            learner.save(state, asdict(curve[-1]))
    if plan.begin and plan.kept:
        learner.blend(_model(plan, tokenizer), plan.kept)
    validation_loss = _validation_loss(learner, tokenizer, plan.seed)
    save_model(learner.model, tokenizer, plan.output)
    return TrainingResult(
        machine=torch.cuda.get_device_name() if torch.cuda.is_available() else f"{plan.threads} processor threads",
        parameters=learner.model.num_parameters(),
        shape=learner.model.config.to_dict(),
        validation_loss=validation_loss,
        curve=tuple(curve),
    )


def read_curve(work: Path) -> list[Progress]:
    """Read the loss curve of a training."""
    file = work / "curve.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [Progress(**json.loads(line)) for line in lines]


def _line(point: Progress) -> str:
    return json.dumps(asdict(point)) + "\n"


def _tokenizer(plan: TrainingPlan) -> PreTrainedTokenizerFast:
    """Train the tokenizer once; a training that goes on needs the same one."""
    folder = plan.begin or plan.work / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        build_tokenizer(plan.seed).save_pretrained(folder)
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def _model(plan: TrainingPlan, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    if plan.begin is None:
        return build_model(tokenizer, plan.shape)
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(plan.begin, dtype=torch.float32)
    return model


@torch.no_grad()
def _validation_loss(learner: Learner, tokenizer: PreTrainedTokenizerFast, seed: int) -> float:
    """Compute the mean loss on conversations of another seed."""
    batches = islice(make_batches(tokenizer, seed + _VALIDATION_SEED_OFFSET), _VALIDATION_BATCHES)
    with torch.compiler.set_stance("force_eager"):  # To record these few would take longer.
        losses = [learner.loss(batch).item() for batch in batches]
    return sum(losses) / len(losses)
