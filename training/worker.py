"""The process of one run: `python -m training.worker RUN_DIR`. It outlives the page and the server.

It speaks through the folder alone: what happens is appended to its events, a file STOP ends it after the current step,
and after `kill -9` the same command goes on from the last checkpoint that is whole.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import Timeout

from core.errors import RequestRefused
from providers.sentences import say
from training.batches import RunFailed, asked, columns, encoded_replay, encoded_rows, in_order
from training.datasets import read_rows
from training.encoding import load_tokenizer
from training.run_folder import DISK_FULL, MAKE_ROOM, UNTOLD, RunFolder, Spec, last_good_checkpoint, write_whole

ALPHA = 32
CHECKPOINTS_IN_A_RUN = 5
LOCK_SECONDS = 20
LARGE_MODEL = 1_000_000_000

log = logging.getLogger(__name__)


def run(folder: RunFolder) -> int:
    """Train, and say in the events how it went; return the process's exit status."""
    try:
        _train(folder, folder.spec())
        return 0
    except (RunFailed, RequestRefused) as error:
        failure = error
    except OSError as error:
        log.exception("the run failed")
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        failed = say("The disk failed: {reason}.", reason=error.strerror or "error")
        failure = RunFailed(DISK_FULL if full else failed, MAKE_ROOM)
    except MemoryError:
        failure = _out_of_memory()
    except Exception as error:
        log.exception("the run failed")
        failure = _out_of_memory() if "memory" in str(error) else _unexpected(error)
    try:
        folder.append(
            "failed", message=failure.message.to_json(), hint=failure.hint.to_json() if failure.hint else None
        )
    except OSError:
        log.exception("that could not be told")
        return UNTOLD
    return 1


def _train(folder: RunFolder, spec: Spec) -> None:
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, set_seed
    from transformers.utils import logging as transformers_logging
    from trl import SFTConfig, SFTTrainer

    from providers.precision import choose_device
    from training.replay import replay_rows

    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    recipe = spec.recipe
    set_seed(recipe.seed)
    device = choose_device(spec.device)
    base = Path(spec.base_folder)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(base, config)
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.float32 if device.type == "cpu" else torch.bfloat16,
        device_map=device,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = read_rows(Path(spec.rows), spec.rows_sha256)
    limit = min(recipe.max_length, _context_length(model.config))
    learnt, held_out, too_long = encoded_rows(rows, tokenizer, limit, recipe)
    replayed = encoded_replay(
        replay_rows(model, tokenizer, folder.path / "replay.jsonl", folder.shall_stop, asked(rows))
        if recipe.replay and any(row.messages for row in rows)
        else [],
        tokenizer,
        limit,
    )
    steps = recipe.steps(len(learnt))
    pause = max(1, steps // CHECKPOINTS_IN_A_RUN)
    on_gpu = device.type != "cpu"
    large = model.num_parameters() > LARGE_MODEL
    resumed = last_good_checkpoint(folder.checkpoints)
    _drop_broken(folder.checkpoints, resumed)
    try:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=str(folder.checkpoints),
                max_steps=steps,
                per_device_train_batch_size=recipe.batch_size,
                per_device_eval_batch_size=recipe.batch_size,
                train_sampling_strategy="sequential",
                learning_rate=recipe.rate(_width(model.config)),
                lr_scheduler_type="cosine",
                warmup_steps=max(1, steps // 20),
                logging_steps=1,
                save_steps=pause,
                eval_strategy="steps" if held_out else "no",
                eval_steps=pause,
                save_total_limit=2,
                max_length=None,
                bf16=on_gpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
                gradient_checkpointing=large,
                use_cpu=not on_gpu,
                dataloader_num_workers=0,
                dataloader_pin_memory=on_gpu,
                report_to="none",
                disable_tqdm=True,
                seed=recipe.seed,
            ),
            train_dataset=Dataset.from_list(columns(in_order(learnt, replayed, recipe, steps))),
            eval_dataset=Dataset.from_list(columns(held_out)) if held_out else None,
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=recipe.rank,
                lora_alpha=ALPHA,
                lora_dropout=recipe.dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )
    except ValueError as error:
        log.exception("no adapter")
        raise RunFailed(
            say("This model's architecture cannot take a LoRA adapter: {reason}.", reason=_first_line(error)),
            say("Choose another base model."),
        ) from error
    folder.append(
        "started",
        steps=steps,
        resumed_from=trainer_step(resumed),
        rows=len(learnt),
        held_out=len(held_out),
        replayed=sum(map(len, replayed)),
        too_long=too_long,
        limit=limit,
        trainable=sum(each.numel() for each in trainer.model.parameters() if each.requires_grad),
        parameters=model.num_parameters(),
        device=str(device),
    )
    trainer.add_callback(_reporter(folder, steps))
    if held_out and resumed is None:
        trainer.evaluate()
    if not folder.shall_stop():
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    step = trainer.state.global_step
    adapter = _save_adapter(folder, trainer.model, spec, step)
    if held_out and step < steps:
        trainer.evaluate()
    folder.append("finished" if step >= steps else "stopped", step=step, steps=steps, adapter=adapter)


def _reporter(folder: RunFolder, steps: int) -> Any:
    """Return the trainer's callback: it tells each step, and ends the run when that is wished."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        begun = 0.0
        first_step = 0
        first_tokens = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.begun, self.first_step = time.monotonic(), state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if folder.shall_stop():
                control.should_training_stop = True
                control.should_save = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" not in logs:
                return
            seconds = time.monotonic() - self.begun
            done = state.global_step - self.first_step
            tokens = logs.get("num_tokens", 0.0)
            self.first_tokens = self.first_tokens or tokens / max(1, done)
            folder.append(
                "progress",
                step=state.global_step,
                steps=steps,
                loss=_number(logs["loss"]),
                learning_rate=_number(logs.get("learning_rate")),
                grad_norm=_number(logs.get("grad_norm")),
                accuracy=_number(logs.get("mean_token_accuracy")),
                tokens=tokens,
                tokens_per_second=round(tokens / seconds, 1) if seconds > 0 else None,
                eta_seconds=round(seconds / done * (steps - state.global_step), 1) if done else None,
            )

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
            folder.append("evaluated", step=state.global_step, loss=_number(metrics["eval_loss"]))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            folder.append("checkpoint", step=state.global_step)

    return Reporter()


def _save_adapter(folder: RunFolder, model: Any, spec: Spec, step: int) -> str:
    """Save the adapter under its step's name; it and the file that lists the tuned model appear when they are whole."""
    name = f"adapter-{step}"
    part = folder.path / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = spec.base
    model.save_pretrained(part)
    (part / "README.md").unlink(missing_ok=True)
    shutil.rmtree(folder.path / name, ignore_errors=True)
    part.rename(folder.path / name)
    write_whole(folder.path / "tuned.json", json.dumps({"base": spec.base, "adapter": name, "step": step}))
    return name


def _drop_broken(checkpoints: Path, good: Path | None) -> None:
    """Remove checkpoints that were cut off while they were saved, which the trainer would count as its own."""
    for path in checkpoints.glob("checkpoint-*"):
        if good is None or trainer_step(path) > trainer_step(good):
            shutil.rmtree(path, ignore_errors=True)


def trainer_step(checkpoint: Path | None) -> int:
    """Return the step of a checkpoint's folder."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _width(config: Any) -> int:
    text = config.get_text_config()
    return int(getattr(text, "hidden_size", 0) or getattr(text, "n_embd", 0) or 2000)


def _context_length(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 1024)


def _number(value: Any) -> float | None:
    """Return a number that JSON can hold."""
    return round(float(value), 6) if value is not None and math.isfinite(float(value)) else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _out_of_memory() -> RunFailed:
    return RunFailed(
        say("There is not enough memory for this run."),
        say("Choose a smaller model, batch_size or max_length, or close other programs."),
    )


def _unexpected(error: Exception) -> RunFailed:
    return RunFailed(
        say("The training failed: {reason}.", reason=_first_line(error)),
        say("The file worker.log in the run's folder says more."),
    )


def _give_way() -> None:
    """Compute only while nobody else wants to: a chat comes first."""
    with contextlib.suppress(AttributeError, OSError):
        os.nice(19)
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main(arguments: Sequence[str]) -> int:
    """Train the run of the folder that is named.

    The exit status is 0 when it finished or was stopped, 1 when it failed and said why, `UNTOLD` when the disk did not
    even take that, and 2 when another process has the run.
    """
    folder = RunFolder(Path(arguments[0]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _give_way()
    try:
        with folder.lock().acquire(timeout=LOCK_SECONDS):
            return run(folder)
    except Timeout:
        log.error("another process trains this run")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
