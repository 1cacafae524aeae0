"""simpleIA's web application: builds the services, the page and the API, and serves them."""

from __future__ import annotations

import gc
import os

# What is imported stays for good: looking for garbage in it meanwhile takes a sixth of the start.
gc.disable()

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from core.openmp import spin_briefly

spin_briefly()

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncGenerator

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from components import chat as chat_tab
from components import feedback as feedback_tab
from components import finetune as finetune_tab
from components import layout, services, texts
from components import models as models_tab
from components import monitor as monitor_tab
from components import parameters as parameters_tab
from components.api import PublicApi
from components.api_models import ModelsApi
from components.api_providers import ProvidersApi
from components.api_workshop import WorkshopApi
from components.first_script import FirstScript
from components.protection import Protection, refuse_wrong_fields
from components.session_states import keep_sessions_lean
from core.chat import Chat
from core.database import Database
from core.errors import RequestRefused
from core.models import Models
from core.sessions import SessionModels
from core.settings import Settings, SettingsError
from providers.errors import ProviderError
from training.workshop import Workshop

gc.freeze()
gc.enable()

MAX_THREADS = 200
MAX_WAITING = 200
IDLE_POLL_SECONDS = 0.015
PROGRESS_POLL_SECONDS = 0.1

log = logging.getLogger("simpleia")


def create_app(settings: Settings) -> FastAPI:
    """Build the application: the page and the generated API at `/`, one set of services behind them."""
    models = Models(settings)
    database = Database(settings.data_dir)
    workshop = Workshop.on(database, models)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        background = [asyncio.create_task(_load_default(models)), asyncio.create_task(workshop.runs.watch())]
        yield
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await models.aclose()
        await database.aclose()

    app = FastAPI(title="simpleIA", lifespan=lifespan)
    app.add_middleware(CORSMiddleware, allow_origins=[])
    app.add_middleware(FirstScript, script=layout.FIRST_SCRIPT)
    app.add_middleware(Protection)
    demo = build_page(models, Chat(models, database), workshop)
    demo.max_threads = MAX_THREADS
    demo.queue(api_open=False, max_size=MAX_WAITING, default_concurrency_limit=None)
    # Gradio has no option for it, but sets these fields by itself to 0.05 s and 0.1 s on Windows.
    demo._queue.sleep_when_free = IDLE_POLL_SECONDS
    demo._queue.progress_update_sleep_when_free = PROGRESS_POLL_SECONDS
    # Gradio refuses files that nobody uploaded only where `launch` was called, which a mounted page never does.
    demo.has_launched = True
    gr.mount_gradio_app(
        app,
        demo,
        path="/",
        theme=layout.THEME,
        css_paths=[layout.STYLE],
        i18n=texts.I18N,
        show_error=False,
        max_file_size="10mb",
        allowed_paths=[],
        blocked_paths=[str(settings.data_dir), ".env"],
        enable_monitoring=False,
        run_history=False,
        pwa=False,
        ssr_mode=False,
        footer_links=["api"],
    )
    keep_sessions_lean(demo)
    refuse_wrong_fields(app)
    return app


def build_page(models: Models, chat: Chat, workshop: Workshop) -> gr.Blocks:
    """Lay out every tab, then connect them; only this function sees two tabs."""
    with gr.Blocks(title="simpleIA", fill_height=True, analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        with gr.Row(elem_id="header"):
            layout.build_title()
            picker = models_tab.build_picker(models)
            switches = layout.build_switches()
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(texts.t("tab_chat"), id="chat", elem_id="tab-chat"):
                chat_ui = chat_tab.build()
            with gr.Tab(texts.t("tab_parameters"), id="parameters", elem_id="tab-parameters", render_children=True):
                parameters = parameters_tab.build()
            with gr.Tab(texts.t("tab_models"), id="models", elem_id="tab-models") as models_area:
                models_ui = models_tab.build()
                services_ui = services.build(models)
            with gr.Tab(texts.t("tab_feedback"), id="feedback", elem_id="tab-feedback") as feedback_area:
                feedback_ui = feedback_tab.build()
            with gr.Tab(texts.t("tab_finetune"), id="finetune", elem_id="tab-finetune") as finetune_area:
                finetune_ui = finetune_tab.build()
            is_owner = models.settings.auth == "off"
            with gr.Tab(texts.t("tab_monitor"), id="monitor", elem_id="tab-monitor", visible=is_owner) as monitor_area:
                monitor_ui = monitor_tab.build()
        layout.wire(switches, demo)
        parameters_tab.wire(parameters, chat_ui.panel, demo)
        key_changes = services.wire(services_ui, models, demo)
        models_tab.wire(models_ui, picker, parameters, models, key_changes, models_area, demo)
        chat_tab.wire(chat_ui, picker, parameters, chat, workshop.feedback, demo)
        feedback_tab.wire(feedback_ui, feedback_area, workshop.feedback, models)
        monitor_tab.wire(monitor_ui, monitor_area, models)
        finetune_tab.wire(finetune_ui, finetune_area, picker, models_ui, parameters, workshop, models)
        sessions = SessionModels()
        PublicApi(chat, models, sessions).register()
        ProvidersApi(models, sessions).register()
        ModelsApi(models).register()
        WorkshopApi(workshop, models).register()
    return demo


async def _load_default(models: Models) -> None:
    try:
        await models.load("")
    except (ProviderError, RequestRefused) as error:
        log.warning("The default model is not there: %s", error)


def main() -> None:
    """Serve on the address that the environment names."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    print(f"simpleIA starts on http://{settings.host}:{settings.port}", flush=True)
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning")


if __name__ == "__main__":
    main()
