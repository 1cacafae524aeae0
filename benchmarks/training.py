"""Fine-tuning: our run against a plain TRL script of the same recipe, and how long a chat waits while a run trains.

`training_tps_ratio` is tokens/s of our run over the script's of the same round; `chat_p95_ratio` the 95th percentile of
the time to a chat's first token during a run over that without one, both of the same server.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import Spread
from benchmarks.servers import ROOT, Server, ask, call, simpleia
from training.datasets import read_rows
from training.encoding import encode, load_tokenizer
from training.recipes import Recipe
from training.rows import from_file, prepare, to_line
from training.run_folder import RunFolder, Spec
from training.runs import ENVIRONMENT

STARTER = ROOT / "models" / "starter"
RECIPE = Recipe(epochs=6, replay=0, word_dropout=0, learning_rate=1e-3)
ROWS = 120
QUESTIONS = 40
GOALS = {"training_tps_ratio": ">= 0.97", "chat_p95_ratio": "<= 2"}

PLAIN = """
import json, sys, time
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

plan = json.load(open(sys.argv[1]))
set_seed(0)
tokenizer = AutoTokenizer.from_pretrained(plan["base"])
seen = {}

class Clock(TrainerCallback):
    def on_train_begin(self, args, state, control, **_):
        seen["begun"] = time.monotonic()

    def on_log(self, args, state, control, logs, **_):
        if "loss" in logs:
            seen["speed"] = logs["num_tokens"] / (time.monotonic() - seen["begun"])

trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(plan["base"], dtype="float32"),
    args=SFTConfig(
        output_dir=plan["output"], max_steps=plan["steps"], per_device_train_batch_size=plan["batch_size"],
        per_device_eval_batch_size=plan["batch_size"], train_sampling_strategy="sequential",
        learning_rate=plan["learning_rate"], lr_scheduler_type="cosine", warmup_steps=max(1, plan["steps"] // 20),
        logging_steps=1, save_steps=plan["pause"], eval_strategy="steps", eval_steps=plan["pause"], save_total_limit=2,
        max_length=None, bf16=False, gradient_checkpointing=False, use_cpu=True, dataloader_pin_memory=False,
        report_to="none", disable_tqdm=True, seed=0,
    ),
    train_dataset=Dataset.from_list(plan["rows"]), eval_dataset=Dataset.from_list(plan["held_out"]),
    processing_class=tokenizer, callbacks=[Clock()],
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
print("SPEED", seen["speed"])
"""


def measure(rounds: int) -> dict[str, Any]:
    """Alternate both ways of training, then chats without and with a run beside them."""
    machine = report.machine()
    others = report.OtherPrograms()
    speeds: dict[str, list[float]] = {"ours": [], "plain": []}
    for number, order in zip(range(rounds), itertools.cycle((("ours", "plain"), ("plain", "ours"))), strict=False):
        for way in order:
            speeds[way].append(_ours() if way == "ours" else _plain())
        report.progress(
            f"round {number + 1} of {rounds}: " + ", ".join(f"{way} {speeds[way][-1]:.0f}/s" for way in order)
        )
    waits: dict[str, list[float]] = {"alone": [], "beside a run": []}
    with simpleia() as server:
        _first_tokens(server, 5)
        for number in range(rounds):
            waits["alone"].append(_p95(_first_tokens(server, QUESTIONS)))
            with _training(server):
                waits["beside a run"].append(_p95(_first_tokens(server, QUESTIONS)))
            told = ", ".join(f"{values[-1]:.3f} s {way}" for way, values in waits.items())
            report.progress(f"round {number + 1} of {rounds}, p95: {told}")
    ratios = {
        "training_tps_ratio": Spread.of(
            ours / plain for ours, plain in zip(speeds["ours"], speeds["plain"], strict=True)
        ),
        "chat_p95_ratio": Spread.of(
            busy / alone for busy, alone in zip(waits["beside a run"], waits["alone"], strict=True)
        ),
    }
    return {
        **{name: spread.median for name, spread in ratios.items()},
        "ratios": ratios,
        "rounds": rounds,
        "tokens_per_second": {way: Spread.of(values) for way, values in speeds.items()},
        "first_token_p95_seconds": {way: Spread.of(values) for way, values in waits.items()},
        "other_programs_percent": others.percent(),
        "machine": machine,
    }


def _lines() -> bytes:
    rows = (
        {
            "prompt": f"What is kept on shelf {number} of the shop?",
            "completion": f"Box {number * 7} with {number} tins.",
        }
        for number in range(ROWS)
    )
    return "\n".join(map(json.dumps, rows)).encode()


def _ours() -> float:
    """Train by our worker; return its tokens/s."""
    with tempfile.TemporaryDirectory() as path:
        rows, _ = prepare(from_file(_lines())[0], ROWS)
        file = Path(path) / "rows.jsonl"
        file.write_text("".join(map(to_line, rows)), encoding="utf-8")
        folder = RunFolder(Path(path) / "run")
        folder.write_spec(Spec("run", "starter", str(STARTER), str(file), "", RECIPE, "cpu"))
        run_worker(folder)
        return next(
            float(event.data["tokens_per_second"])
            for event in reversed(list(folder.events()))
            if event.data["kind"] == "progress"
        )


def run_worker(folder: RunFolder) -> None:
    """Train what the folder says, as the app does, and wait for it."""
    _run("-m", "training.worker", str(folder.path), environment=ENVIRONMENT)


def _plain() -> float:
    """Train the same rows in the same order by a plain script; return its tokens/s."""
    with tempfile.TemporaryDirectory() as path:
        rows, _ = prepare(from_file(_lines())[0], ROWS)
        file = Path(path) / "rows.jsonl"
        file.write_text("".join(map(to_line, rows)), encoding="utf-8")
        tokenizer = load_tokenizer(STARTER, {})
        encoded = [(row.held_out, encode(row, tokenizer)) for row in read_rows(file)]
        learnt = [{"input_ids": list(each.ids), "labels": each.labels} for held_out, each in encoded if not held_out]
        held_out = [{"input_ids": list(each.ids), "labels": each.labels} for held_out, each in encoded if held_out]
        steps = RECIPE.steps(len(learnt))
        plan = {
            "base": str(STARTER),
            "output": f"{path}/out",
            "steps": steps,
            "pause": max(1, steps // 5),
            "batch_size": RECIPE.batch_size,
            "learning_rate": RECIPE.learning_rate,
            "rows": learnt,
            "held_out": held_out,
        }
        (Path(path) / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        (Path(path) / "plain.py").write_text(PLAIN, encoding="utf-8")
        said = _run(f"{path}/plain.py", f"{path}/plan.json")
        return float(said.rpartition("SPEED")[2].split()[0])


def _run(*arguments: str, environment: dict[str, str] | None = None) -> str:
    command, variables = [sys.executable, *arguments], os.environ | (environment or {})
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


@contextmanager
def _training(server: Server) -> Iterator[None]:
    """Let the server train until the block ends."""
    dataset = call(server, "import_dataset", content=_lines().decode())
    recipe = {**vars(replace(RECIPE, epochs=1000))}
    run = call(server, "start_training", dataset_id=dataset["dataset_id"], recipe=recipe)
    while call(server, "training_status", run_id=run["run_id"])["step"] < 3:
        time.sleep(0.5)
    try:
        yield
    finally:
        call(server, "stop_training", run_id=run["run_id"])
        while call(server, "training_status", run_id=run["run_id"])["state"] in ("running", "stopping"):
            time.sleep(0.5)


def _first_tokens(server: Server, count: int) -> list[float]:
    """Ask short questions one after the other; return the seconds to each answer's first token."""
    seconds = []
    for number in range(count):
        asked = time.perf_counter()
        for now, event in ask(server, f"Hello, this is question {number}", max_tokens=8, temperature=0):
            if event["type"] == "delta" and event["text"]:
                seconds.append(now - asked)
                break
        time.sleep(0.05)
    return seconds


def _p95(seconds: list[float]) -> float:
    return sorted(seconds)[round(0.95 * (len(seconds) - 1))]


def main() -> None:
    """Measure, and print what was found."""
    options = report.arguments(__doc__, rounds=4)
    result = measure(options.rounds)
    table = [("", f"median [min..max] of {options.rounds} rounds", "goal")]
    table += [(name, str(spread), GOALS[name]) for name, spread in result["ratios"].items()]
    table += [(f"{way}, tokens/s", str(spread), "") for way, spread in result["tokens_per_second"].items()]
    table += [(f"chat {way}, p95 s", str(spread), "") for way, spread in result["first_token_p95_seconds"].items()]
    report.finish("training", result, table, options)


if __name__ == "__main__":
    main()
