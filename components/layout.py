"""The frame around the tabs: the header, the look, and the scripts that choose language and colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from components.texts import COOKIE, LANGUAGES, t

STYLE = Path(__file__).parent / "page.css"

THEME = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    radius_size="md",
    spacing_size="sm",
    font=["ui-sans-serif", "system-ui", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
).set(
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    block_title_text_color="*neutral_800",
    block_title_text_color_dark="*neutral_100",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_200",
    block_title_text_weight="600",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
)

# Runs before Gradio's scripts, which read the language from `navigator` and the colours from the address.
FIRST_SCRIPT = f"""
(() => {{
  const language = document.cookie.match(/(?:^|; ){COOKIE}=({"|".join(LANGUAGES)})/)?.[1];
  if (language) Object.defineProperty(navigator, "language", {{ value: language, configurable: true }});
  const colours = localStorage.getItem("simpleia-colours");
  const url = new URL(location.href);
  if (colours && !url.searchParams.has("__theme")) {{
    url.searchParams.set("__theme", colours);
    history.replaceState(null, "", url);
  }}
}})();
"""

CHOOSE_LANGUAGE = f"""(language) => {{
  document.cookie = `{COOKIE}=${{language}}; path=/; max-age=31536000; samesite=lax`;
  location.reload();
  return language;
}}"""

SWITCH_COLOURS = """() => {
  const dark = document.body.classList.toggle("dark");
  const colours = dark ? "dark" : "light";
  localStorage.setItem("simpleia-colours", colours);
  const url = new URL(location.href);
  url.searchParams.set("__theme", colours);
  history.replaceState(null, "", url);
}"""

SHOW_LANGUAGE = f"""() => {{
  const language = (navigator.language || "en").slice(0, 2);
  return {list(LANGUAGES)}.includes(language) ? language : "{LANGUAGES[0]}";
}}"""


@dataclass(frozen=True)
class Header:
    """The controls of the header that concern the whole page."""

    language: gr.Dropdown
    colours: gr.Button


def build_title() -> None:
    """Lay out the product's name."""
    gr.HTML("<h1>simpleIA</h1>", elem_id="title", padding=False)


def build_switches() -> Header:
    """Lay out the switches of language and colours."""
    language = gr.Dropdown(
        [("English", "en"), ("Español", "es")],
        value="en",
        label=t("language_label"),
        show_label=False,
        container=False,
        elem_id="language",
        min_width=100,
        scale=0,
        filterable=False,
    )
    colours = gr.Button(t("colours_label"), size="sm", elem_id="colours", min_width=90, scale=0)
    return Header(language=language, colours=colours)


def wire(ui: Header, demo: gr.Blocks) -> None:
    """A new language reloads the page in it; the conversation is kept by the browser."""
    ui.language.input(None, ui.language, ui.language, js=CHOOSE_LANGUAGE, api_visibility="private")
    ui.colours.click(None, None, None, js=SWITCH_COLOURS, api_visibility="private")
    demo.load(None, None, ui.language, js=SHOW_LANGUAGE, api_visibility="private")
