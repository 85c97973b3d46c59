"""OpenAI's answers as types, one module an endpoint: what the writers in ``translation`` send.

The keys are in snake_case. Nothing is validated by them at run time: the OpenAPI document is made
of them, and tests hold real answers to it.
"""
