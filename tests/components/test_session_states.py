"""A new session holds no copy of the page."""

from __future__ import annotations

import gradio as gr

from components.session_states import keep_sessions_lean


def test_a_session_begins_without_the_components_and_notes_what_it_changes() -> None:
    with gr.Blocks() as page:
        words = gr.Textbox("as built")
        kept = gr.State(["nothing"])
    gr.routes.App.create_app(page)
    keep_sessions_lean(page)
    session, other = page.state_holder["one"], page.state_holder["two"]

    assert session.config_values == {}
    assert session[words._id].value == "as built"
    session[kept._id] = ["something"]
    assert (session[kept._id], other[kept._id]) == (["something"], ["nothing"])
    session.blocks_config.blocks[words._id] = gr.Textbox("changed", render=False)
    assert other[words._id].value == "as built"
