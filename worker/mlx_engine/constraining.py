"""Answers that must fit a grammar, by llguidance: after each token it tells which ones may be next.

The library is imported at the first constrained request, and its view of the tokenizer made then, once. What that
costs, measured on two busy x86 cores with a vocabulary of 49,000: the tokenizer 0.3 s; to compile a schema 1 to 2 ms,
of 300 fields 10 ms, and the library's own limits end what would take much longer; a step 0.02 to 0.9 ms, at most 2.
The forward pass runs meanwhile.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import mlx.core as mx
import numpy as np

from ...ipc.messages import ChatPrompt, Constraint, JsonConstraint, Prompt, ToolConstraint
from ..errors import InvalidRequest, Unsupported
from ..tool_grammar import BLANKS, grammar, named, quoted
from .loading import LoadedModel

MOST_GRAMMARS = 32
"""Compiled ones kept: clients send the same few schemas again and again."""
RECENT = 16
"""Tokens at the prompt's end among which a reasoning mark means that the template has decided whether to reason."""


class Constrained:
    """Where one sequence is in its grammar. The calls don't raise; `failure` tells what went wrong.

    Args:
        matcher: llguidance's, at the answer's beginning.
        width: Of the logits.
        reasoning: Marks that begin and end reasoning, as tokens: none of it is constrained. None: there is none.
        inside: The answer begins inside the reasoning.
    """

    def __init__(
        self,
        matcher: Any,
        width: int,
        reasoning: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
        *,
        inside: bool = False,
    ) -> None:
        self._matcher = matcher
        self._width = width
        self._begin, self._end = reasoning or ((), ())
        self._reasoning: list[int] | None = [] if inside else None
        self._fresh = not inside
        self.failure: str | None = None

    def heard(self, token: int) -> None:
        """The answer goes on with this token."""
        if self._reasoning is not None:
            self._reasoning = [*self._reasoning, token][-len(self._end) :]
            if tuple(self._reasoning) == self._end:
                self._reasoning = None
        elif self._fresh and (token,) == self._begin:
            self._reasoning = []
        elif not self._matcher.consume_token(token):
            self._fail()
        self._fresh = False

    def mask(self, logits: Any) -> Any:
        """Logits shaped (1, vocabulary), at minus infinity for what may not come next."""
        if self._reasoning is not None or self.failure is not None:
            return logits
        allowed = self._allowed()
        return logits if allowed is None else mx.where(mx.array(allowed), logits, -mx.inf)

    def _allowed(self) -> Any:
        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.zeros(self._width, dtype=bool)
        bits = np.unpackbits(words, bitorder="little")[: self._width]
        allowed[: len(bits)] = bits
        if self._fresh and len(self._begin) == 1:
            allowed[self._begin[0]] = True
        if self._matcher.is_error() or not allowed.any():
            self._fail()
            return None
        return allowed

    def _fail(self) -> None:
        reason = self._matcher.get_error() or "nothing may follow"
        self.failure = self.failure or f"the constraint can't be kept: {_brief(reason)}"


class Grammars:
    """Compiles constraints for one model, and keeps the latest.

    Args:
        loaded: The model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._library: Any = None
        self._tokens: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def begin(self, constraint: Constraint, prompt: Prompt, tokens: Sequence[int], *, several: bool) -> Constrained:
        """A constraint at an answer's beginning.

        Args:
            constraint: The request's.
            prompt: The request's, for its tools.
            tokens: Of the prompt.
            several: More than one tool call may come.

        Raises:
            Unsupported: The library is missing, or can't be used with this tokenizer, or the tool format can't.
            InvalidRequest: The schema can't be used; the message says why.
        """
        self._prepare()
        matcher = self._matcher(constraint, prompt, several=several)
        tokenizer = self._loaded.tokenizer
        if not isinstance(prompt, ChatPrompt) or not tokenizer.has_thinking:
            return Constrained(matcher, self._loaded.width)
        marks = tuple(tokenizer.think_start_tokens), tuple(tokenizer.think_end_tokens)
        inside = tokenizer.rfind_think_start(tokens) > tokenizer.rfind_think_end(tokens)
        decided = tokenizer.rfind_think_end(tokens, start=len(tokens) - RECENT) >= 0
        return Constrained(matcher, self._loaded.width, None if decided else marks, inside=inside)

    def _prepare(self) -> None:
        if self._tokens is not None:
            return
        try:
            import llguidance  # noqa: PLC0415 - the worker starts without it
        except ImportError as error:
            raise Unsupported(
                "answers can't be constrained: llguidance is missing", remedy="install llguidance", field="constraint"
            ) from error
        try:
            self._tokens = self._vocabulary(llguidance.LLTokenizer)
        except Exception as error:
            # A tokenizer that it doesn't know, which it tells by whatever it ran into.
            raise Unsupported(
                f"answers can't be constrained with this model's tokenizer: {_brief(error)}",
                remedy="leave response_format and tool_choice to the model",
                field="constraint",
            ) from error
        self._library = llguidance

    def _vocabulary(self, make: Callable[..., Any]) -> Any:
        tokenizer, width = self._loaded.tokenizer, self._loaded.width
        ends = sorted(token for token in tokenizer.eos_token_ids if token < width)
        if not ends:
            raise ValueError("it has no token that ends an answer")
        backend = copy(tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        return make(backend.to_str(), n_vocab=width, eos_token=ends)

    def _matcher(self, constraint: Constraint, prompt: Prompt, *, several: bool) -> Any:
        match constraint:
            case JsonConstraint(schema=schema, or_call=or_call):
                matcher = self._compile(self._json(_demanded(schema)), "constraint.schema")
                if not or_call or self._loaded.tokenizer.tool_parser is None:
                    return matcher
                source = self._tool(prompt, None, several=several, instead=_demanded(schema))
            case ToolConstraint(name=name):
                source = self._tool(prompt, name, several=several)
        return self._compile(source, "tools")

    def _compile(self, source: str, field: str) -> Any:
        if source not in self._compiled:
            limits = self._library.LLParserLimits(verbose_errors=False)
            matcher = self._library.LLMatcher(self._tokens, source, log_level=0, limits=limits)
            if matcher.is_error():
                raise InvalidRequest(f"the schema can't be used: {_brief(matcher.get_error())}", field=field)
            self._compiled[source] = matcher
        self._compiled.move_to_end(source)
        if len(self._compiled) > MOST_GRAMMARS:
            self._compiled.popitem(last=False)
        return self._compiled[source].deep_copy()

    def _json(self, schema: Mapping[str, Any]) -> str:
        options = {"whitespace_pattern": BLANKS}
        return str(self._library.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options))

    def _tool(
        self, prompt: Prompt, name: str | None, *, several: bool, instead: Mapping[str, Any] | None = None
    ) -> str:
        tokenizer = self._loaded.tokenizer
        tools = prompt.tools if isinstance(prompt, ChatPrompt) else ()
        functions = named(tools, name)
        if tokenizer.tool_parser is None:
            raise Unsupported("this model calls no tools", field="constraint")
        kind = tokenizer.tool_parser.__module__.rpartition(".")[2]
        header = "[ARGS]" in str(tokenizer.chat_template)
        several = several and name is None
        text = grammar(kind, functions, self._mark, header=header, several=several, instead=instead)
        return str(self._library.LLMatcher.grammar_from_lark(text))

    def _mark(self, text: str) -> str:
        tokens = self._loaded.tokenizer.encode(text, add_special_tokens=False)
        return f"<[{tokens[0]}]>" if len(tokens) == 1 else quoted(text)


def _demanded(schema: dict[str, Any] | bool | None) -> Mapping[str, Any]:
    """The schema of a constraint as an object.

    Raises:
        InvalidRequest: Nothing fits it.
    """
    if schema is False:
        raise InvalidRequest("the schema `false` allows no answer", field="constraint.schema")
    return {"type": "object"} if schema is None else {} if schema is True else schema


def _brief(error: object) -> str:
    """An error's words on one line, of bounded length: it may quote the schema."""
    return " ".join(str(error).split())[:300]
