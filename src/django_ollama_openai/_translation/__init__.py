"""Translate between OpenAI's format and the engines': pure functions and the state of streams.

No I/O and no Django.
"""
