"""OpenAI's chat completions, completions and models.

`endpoints` serves; `types` is what a client may send (`messages`, `tools`, `sampling` are its parts), `request` what
becomes of it; `answer`, `chunks`, `completions` and `logprobs` make the bytes that go back.
"""
