"""OpenAI's Responses, without storing anything.

`endpoints` serves; `types`, `items` and `tools` are what a client may send, `request` what becomes of it; `document`
is what goes back, and `answer` makes it, whole or as events.
"""
