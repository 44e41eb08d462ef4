"""From a request to a generation that can be computed."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...ipc.messages import Generate, Id, Prompt, TokenCount
from ..chat import prompt_tokens
from ..normalise import normalised
from .admission import admit, planned_length
from .choosing import Choosers
from .generation import Generation, replay
from .learner import Learner
from .loading import LoadedModel
from .text import TextStream


class Intake:
    """Takes the requests of one model.

    Args:
        loaded: The model.
        normalise: What clients change with every request is taken out of prompts.
        learner: Counts what requests begin with; None learns nothing.
    """

    def __init__(self, loaded: LoadedModel, learner: Learner | None, *, normalise: bool) -> None:
        self._loaded = loaded
        self._learner = learner
        self._normalise = normalise
        self._ends = frozenset(loaded.tokenizer.eos_token_ids)
        self.choosers = Choosers(loaded)

    def generation(
        self, request_id: Id, body: Generate, submitted: float
    ) -> tuple[Generation, Literal["stop", "length"] | None]:
        """A request's generation; and its reason to end, if all of its answer was there before its worker died.

        Raises:
            WorkerError: It is refused.
        """
        body = msgspec.structs.replace(body, prompt=self._normalised(body.prompt))
        admitted = admit(self._loaded, body)
        chooser = self.choosers.chooser(body, admitted.prompt)
        # A request that goes on was counted before its worker died; a probe is nobody's.
        if self._learner is not None and not (body.emitted or body.probe):
            self._learner.observe(body.prompt, keep=body.keep)
        text = TextStream(
            self._loaded.tokenizer,
            admitted.prompt,
            body.stop,
            chat=admitted.chat,
            tools=admitted.tools,
            parallel=body.parallel_calls,
        )
        ended = replay(text, admitted.emitted, self._ends)
        generation = Generation(
            id=request_id,
            tokens=admitted.tokens,
            prompt_tokens=len(admitted.prompt),
            completion_tokens=len(admitted.emitted),
            limit=admitted.limit,
            planned=planned_length(admitted, asked=body.max_tokens),
            text=text,
            chooser=chooser,
            submitted=submitted,
            probe=body.probe,
        )
        full = generation.left <= 0 or len(admitted.tokens) >= self._loaded.context
        return generation, ended or ("length" if full else None)

    def count(self, prompt: Prompt) -> TokenCount:
        """How many tokens a generation would count for a prompt.

        Raises:
            InvalidPrompt: It can't be rendered.
        """
        return TokenCount(tokens=len(prompt_tokens(self._loaded.tokenizer, self._normalised(prompt))))

    def _normalised(self, prompt: Prompt) -> Prompt:
        return normalised(prompt, normalise=self._normalise)
