"""The process that holds one GGUF model: `python -m providers.llama_cpp_server`, which `llama_cpp_engine.py` starts.

It reads its options as one line of JSON, loads, writes its address as one line of JSON, and ends when its input does:
so it never outlives who started it, and a file that crashes llama.cpp takes only this process with it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import xllamacpp


def main() -> None:
    """Serve until the input ends."""
    options: dict[str, Any] = json.loads(sys.stdin.readline())
    server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), options))
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.read()
    os._exit(0)  # llama.cpp's threads need not be waited for: the weights are only read.


def _parameters(parameters: Any, options: dict[str, Any]) -> Any:
    parameters.model.path = options["path"]
    parameters.model_alias = {"model"}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [options["key"]]
    parameters.n_ctx = options["context_length"]
    parameters.n_parallel = options["parallel"]
    parameters.kv_unified = True
    parameters.n_gpu_layers = options["gpu_layers"]
    parameters.cpuparams.n_threads = options["threads"]
    parameters.cpuparams_batch.n_threads = options["threads"]
    if options.get("batch"):
        parameters.n_batch = parameters.n_ubatch = options["batch"]
    if options.get("embeds"):
        # What is embedded is read in one piece, so a batch holds the whole context.
        parameters.embedding = True
        parameters.n_batch = parameters.n_ubatch = options["context_length"]
        if options.get("pooling") is not None:
            parameters.pooling_type = xllamacpp.llama_pooling_type(options["pooling"])
    parameters.use_jinja = True
    parameters.endpoint_slots = True
    parameters.ui = False
    return parameters


if __name__ == "__main__":
    main()
