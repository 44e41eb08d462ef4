"""Texts to ask with: of our own making, the same in each run, and of a length that can be chosen."""

from __future__ import annotations

import hashlib
import random

WORDS_PER_TOKEN = 0.93
"""Of the embedded model's tokenizer on these sentences. What a text really has, `usage` says."""
NOT_WORDS = 17
"""Tokens of the nonce and of the chat template, the same tokenizer's."""

SUBJECTS = (
    "The assistant",
    "An answer",
    "A careful reader",
    "The editor",
    "Each reply",
    "A good example",
    "The team",
)
VERBS = ("explains", "checks", "repeats", "avoids", "prefers", "describes", "mentions", "follows")
OBJECTS = (
    "the rules of the house",
    "a short list of steps",
    "every file that was changed",
    "the name of the function",
    "what the tests have shown",
    "the reason behind a decision",
    "words that a child would know",
    "numbers together with their units",
)
ENDINGS = (
    "before anything else is said",
    "unless the user asks for more",
    "in plain and friendly language",
    "whenever there is any doubt",
    "without changing the meaning",
    "as long as it stays true",
)

USERS = (
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "How many days does a week have?",
    "Tell me a short story about a dog.",
    "Please say hello in Spanish.",
    "Is the sun a star?",
    "Compose one sentence about the sea.",
    "Describe an apple.",
)
"""They begin with different letters, so that they share nothing but what is before them, whatever a token is."""


def system_prompt(tokens: int, name: str) -> str:
    """A system prompt of about `tokens` tokens. One of another name differs from its very first words on."""
    nonce = hashlib.sha256(name.encode()).hexdigest()[:8]
    chance = random.Random(nonce)  # noqa: S311 - to be repeatable is what is wanted
    sentences = [f"{nonce} is the number of this session."]
    words = len(sentences[0].split())
    while words < (tokens - NOT_WORDS) * WORDS_PER_TOKEN:
        sentence = " ".join(chance.choice(part) for part in (SUBJECTS, VERBS, OBJECTS, ENDINGS)) + "."
        words += len(sentence.split())
        sentences.append(sentence)
    return " ".join(sentences)


def user_text(name: str) -> str:
    """Something to ask that nobody asked before, and that is answered at length. Another name, another question."""
    nonce = hashlib.sha256(name.encode()).hexdigest()[:6]
    chance = random.Random(nonce)  # noqa: S311 - the same in each run
    parts = " ".join(chance.choice(part) for part in (SUBJECTS, VERBS, OBJECTS, ENDINGS))
    return f"{nonce}: tell me a long story in which {parts[0].lower()}{parts[1:]}."
