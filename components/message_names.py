"""Names for the message box and for pictures in the person's language: Gradio has English ones there, or none."""

from __future__ import annotations

import json

from components.texts import LANGUAGES, text


def _names(language: str) -> dict[str, str]:
    return {
        "#message .full-container": text("box_label", language),
        "#message [data-testid=upload-button]": text("box_attach", language),
        "#message .submit-button": text("box_send", language),
        "#message .stop-button": text("box_stop", language),
        "#message .thumbnails": text("box_pictures", language),
        "#message .thumbnail-wrapper": text("box_picture", language),
        "#message .delete-button": text("box_remove", language),
        "#message .loader": text("box_uploading", language),
        "#chat .image-container > button": text("box_picture", language),
    }


# A list item without a list is an error to screen readers, and the list would hold a button, so each is a group.
NAME_THE_BOX = f"""() => {{
  const all = {json.dumps({language: _names(language) for language in LANGUAGES}, ensure_ascii=False)};
  const names = all[(navigator.language || "").slice(0, 2)] ?? all.{LANGUAGES[0]};
  const say = (part, name, value) => part.getAttribute(name) === value || part.setAttribute(name, value);
  const name = () => {{
    for (const [selector, label] of Object.entries(names))
      document.querySelectorAll(selector).forEach((part) => say(part, "aria-label", label));
    const groups = document.querySelectorAll("#message :is(.thumbnails, .thumbnail-wrapper)");
    groups.forEach((part) => say(part, "role", "group"));
  }};
  const watch = new MutationObserver(name);
  for (const id of ["message", "chat"])
    watch.observe(document.getElementById(id), {{ childList: true, subtree: true }});
  name();
}}"""
