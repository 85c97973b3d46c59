"""The types of OpenAI's responses, with keys in snake_case; one module for each endpoint.

The OpenAPI document is made from them, and tests validate real responses against it. They are not
validated at run time.
"""
