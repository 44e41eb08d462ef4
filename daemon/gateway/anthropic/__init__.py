"""Anthropic's messages.

`endpoints` serves; `types` is what a client may send, `request` and `conversation` what becomes of it, `answer` the
bytes that go back, and `errors` the shape of every refusal under its paths.
"""
