"""OpenAI's wire format: its JSON as pydantic models, deltas, SSE frames. No Django, no I/O."""
