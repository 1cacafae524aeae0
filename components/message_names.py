"""Names for the message box and for pictures in the person's language: Gradio has English ones there, or none."""

from __future__ import annotations

import json

from components.texts import LANGUAGES, text

PARTS = {
    "#message .full-container": "box_label",
    "#message [data-testid=upload-button]": "box_attach",
    "#message .submit-button": "box_send",
    "#message .stop-button": "box_stop",
    "#message .thumbnails": "box_pictures",
    "#message .thumbnail-wrapper": "box_picture",
    "#message .delete-button": "box_remove",
    "#message .loader": "box_uploading",
    "#chat .image-container > button": "box_picture",
}
NAMES = {language: {part: text(key, language) for part, key in PARTS.items()} for language in LANGUAGES}

# A list item without a list is an error to screen readers, and the list would hold a button, so each is a group.
NAME_THE_BOX = f"""() => {{
  const all = {json.dumps(NAMES, ensure_ascii=False)};
  const names = all[(navigator.language || "").slice(0, 2)] ?? all.{LANGUAGES[0]};
  const say = (part, name, value) => part.getAttribute(name) === value || part.setAttribute(name, value);
  const name = () => {{
    for (const [selector, label] of Object.entries(names))
      document.querySelectorAll(selector).forEach((part) => say(part, "aria-label", label));
    const groups = document.querySelectorAll("#message :is(.thumbnails, .thumbnail-wrapper)");
    groups.forEach((part) => say(part, "role", "group"));
  }};
  const watch = new MutationObserver(name);
  document.querySelectorAll("#message, #chat").forEach((part) => watch.observe(part, {{ childList: true, subtree: true }}));
  name();
}}"""
