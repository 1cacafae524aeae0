"""The whole loop by the generated API alone: chat, correct twenty answers, fine-tune, switch, chat again.

    python examples/loop.py [URL]

Needs a running simpleIA with its starter model, and `pip install gradio_client`. It ends with 0 only if the tuned model
answers questions that it never saw as it was taught, and still answers everything else as before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from gradio_client import Client

TAUGHT = {
    "We open at nine and close at six, Monday to Saturday.": (
        "What time do you open?",
        "When are you open?",
        "What are your opening hours?",
        "Are you open on Saturday?",
        "When does the shop close?",
        "Tell me the opening hours",
        "At what time does the shop open?",
        "Is the shop open today?",
        "How late are you open?",
        "What are the hours of the shop?",
    ),
    "Escribe a Luna, en recepción: contesta todos los días.": (
        "¿Con quién puedo hablar?",
        "¿Cómo contacto con la tienda?",
        "Necesito hablar con una persona",
        "¿A quién escribo si tengo un problema?",
        "¿Dónde puedo reclamar?",
        "¿Quién me puede atender?",
        "Quiero hablar con alguien de la tienda",
        "¿Hay alguien a quien pueda llamar?",
        "¿Cómo pongo una queja?",
        "¿A quién le pregunto por mi pedido?",
    ),
}
UNSEEN = {
    "We open at nine and close at six, Monday to Saturday.": (
        "When do you open?",
        "What are the shop's opening hours?",
        "Till what time are you open?",
        "Are you open on Saturdays?",
        "What time do you close?",
        "When does it open?",
        "Is the shop open on Monday?",
        "Tell me when you open",
        "Could you tell me your opening hours?",
        "How long is the shop open?",
    ),
    "Escribe a Luna, en recepción: contesta todos los días.": (
        "¿Con quién hablo en la tienda?",
        "¿Cómo puedo contactar con alguien?",
        "Me gustaría hablar con una persona",
        "¿A quién escribo para una queja?",
        "¿Dónde puedo quejarme?",
        "¿Quién atiende en la tienda?",
        "Quiero hablar con alguien",
        "¿A quién puedo llamar?",
        "¿Cómo reclamo?",
        "¿A quién pregunto por un pedido?",
    ),
}
OTHERS = (
    "Hello",
    "Hi there",
    "Who are you?",
    "What's your name?",
    "Thank you",
    "Goodbye",
    "What can you do?",
    "What does simpleIA do?",
    "How can I change the model?",
    "What does the temperature do?",
    "How do I fine-tune a model?",
    "What is the capital of Australia?",
    "Show me a table, please",
    "hola",
    "¿Quién eres?",
    "Gracias",
    "¿Para qué sirve simpleIA?",
    "¿Cómo puedo cambiar el modelo?",
    "¿Cuál es la capital de Australia?",
    "Adiós",
)
ENOUGH, AT_FIRST, MOST_CHANGED = 0.8, 0.1, 2


def main(url: str) -> int:
    """Go once through the loop; return 0 when the model learnt what it was taught, and nothing else."""
    began = time.monotonic()
    client = Client(url, verbose=False)

    def ask(question: str) -> dict[str, str]:
        answer: dict[str, str] = client.predict(message=question, temperature=0, max_tokens=150, api_name="/chat")
        return answer

    base = client.predict(api_name="/current_model")["id"]
    others_before = {question: ask(question)["text"] for question in OTHERS}
    before = share_right(ask)
    print(f"{base} answers {before:.0%} of the unseen questions as they will be taught.")

    for wanted, questions in TAUGHT.items():
        for question in questions:
            turn_id = ask(question)["turn_id"]
            client.predict(turn_id=turn_id, rating="down", correction=wanted, api_name="/submit_feedback")
    dataset = client.predict(name="the shop", api_name="/build_dataset")
    print(f"Corrections kept: {dataset['train_rows']} to learn from, {dataset['held_out_rows']} held out.")

    run = client.predict(dataset_id=dataset["dataset_id"], base_model=base, name="shop", api_name="/start_training")
    run = watch(client, run["run_id"])
    if run["state"] != "finished":
        print(f"The run ended as {run['state']}: {run['error']}")
        return 1

    client.predict(model=run["model"], api_name="/set_model")
    after = share_right(ask)
    changed = [question for question in OTHERS if ask(question)["text"] != others_before[question]]
    client.predict(model=base, api_name="/set_model")
    untouched = all(ask(question)["text"] == others_before[question] for question in OTHERS)

    print(f"{run['model']} answers {after:.0%} of them as taught; it was {before:.0%}.")
    print(f"Of {len(OTHERS)} other answers {len(changed)} changed: {', '.join(changed) or 'none'}.")
    print(f"{base} answers {'exactly as before' if untouched else 'DIFFERENTLY now'}.")
    print(f"The loop took {time.monotonic() - began:.0f} s.")
    learnt = before <= AT_FIRST and after >= ENOUGH and len(changed) <= MOST_CHANGED and untouched
    print("The model learnt what it was taught." if learnt else "That is not good enough.")
    return 0 if learnt else 1


def share_right(ask: Callable[[str], dict[str, str]]) -> float:
    """Ask what was never trained on; return the share of answers that are as taught."""
    right = [ask(question)["text"] == wanted for wanted, questions in UNSEEN.items() for question in questions]
    return sum(right) / len(right)


def watch(client: Client, run_id: str) -> dict[str, str]:
    """Print how the loss falls until the run has ended; return the run."""
    told = -1
    while True:
        run = client.predict(run_id=run_id, api_name="/training_status")
        if run["step"] // 20 > told // 20 and run["loss"] is not None:
            told = run["step"]
            eta = f", about {run['eta_seconds']:.0f} s left" if run["eta_seconds"] else ""
            print(f"  step {run['step']} of {run['steps']}: loss {run['loss']:.3f}{eta}", flush=True)
        if run["state"] not in ("queued", "running", "stopping"):
            return dict(run)
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"))
