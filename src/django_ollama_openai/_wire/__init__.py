"""OpenAI's wire format: pydantic models of its JSON, deltas, SSE frames. No Django, no I/O."""
