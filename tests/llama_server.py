"""llama.cpp's own HTTP server, run by ``xllamacpp`` in a process of its own: a real engine that
speaks OpenAI's API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django_ollama_openai.backends._llamacpp import bundled_model
from tests.servers import ROOT

__all__ = ["ENGINE_KEY", "LlamaServer", "llama_server"]

ENGINE_KEY = "sk-engine-key"

TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\\nYou may call these functions:' }}
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\nCall one as <tool_call>\\n{"name": "its name", "arguments": {}}\\n</tool_call>' }}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{ message.content }}{%- endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}
"""
"""A chat template that knows tools, which the model's own does not."""


@dataclass(frozen=True)
class LlamaServer:
    """A running server, and what it is called by."""

    url: str
    model: str
    process: subprocess.Popen[str]

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@contextmanager
def llama_server(model: str = "smollm2", **params: Any) -> Iterator[LlamaServer]:
    """Run the small model under the name ``model``; ``params`` are further ones of llama.cpp."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.llama_server", json.dumps({"model": model, **params})],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("llama.cpp's server did not start")
        yield LlamaServer(url, model, process)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    import xllamacpp

    given = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = str(bundled_model())
    params.model_alias = {given.pop("model")}
    params.n_parallel = 2
    params.n_ctx = 4096 * params.n_parallel
    params.warmup = False
    params.verbosity = -1
    params.cpuparams.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [ENGINE_KEY]
    params.use_jinja = True
    params.chat_template = TEMPLATE
    params.endpoint_slots = True
    if pooling := given.pop("pooling", None):
        params.embedding = True
        # As in LlamaCppBackend: inputs of different lengths would be cut.
        params.n_batch = params.n_ubatch = params.kv_unified_per_slot = 4096
        params.kv_unified = True
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{pooling}"]
    for name, value in given.items():
        setattr(params, name, value)
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    # Until whoever has started this goes.
    sys.stdin.read()


if __name__ == "__main__":
    main()
