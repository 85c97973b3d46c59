"""An OpenAI-compatible AI gateway on the site's own Ollama, as a reusable Django app."""

from __future__ import annotations

__version__ = "0.1.0"
