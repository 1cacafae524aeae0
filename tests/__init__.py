"""The tests. What must be set before Gradio and Hugging Face are imported is set here: no cache but an empty one."""

import atexit
import os
import shutil
import tempfile

HOME = tempfile.mkdtemp(prefix="simpleia-tests-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

os.environ["HF_HOME"] = f"{HOME}/huggingface"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_TEMP_DIR"] = f"{HOME}/gradio"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
for name in ("SPACE_ID", "AUTH", "DEFAULT_MODEL", "LLM_PROVIDER", "LLM_MODEL", "HF_TOKEN", "HF_HUB_OFFLINE"):
    os.environ.pop(name, None)
