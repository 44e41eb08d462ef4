"""The tools of a coding agent: twenty schemas of our own making, as long and as nested as real agents' are.

About 4,000 tokens: that is why a prefix that was warmed without its tools is of so little use.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def number(description: str, **more: Any) -> Schema:
    return {"type": "integer", "description": description, **more}


def flag(description: str, *, default: bool = False) -> Schema:
    return {"type": "boolean", "description": description, "default": default}


def list_of(items: Schema, description: str, **more: Any) -> Schema:
    return {"type": "array", "description": description, "items": items, **more}


def record(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def tool(name: str, description: str, parameters: Schema) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


PATH = "Absolute path of the file."

FILES = (
    tool(
        "read_file",
        "Read a text file from the user's machine. Returns up to 2,000 lines, each with its number in front, and "
        "tells how many there are. Lines longer than 2,000 characters are cut. Use `offset` and `limit` for the rest "
        "of a long file; reading a file that was read before, and hasn't changed, is not necessary. Pictures and "
        "notebooks are returned in a form that can be looked at; folders are not read: use `list_folder`.",
        record(
            "path",
            path=text(PATH),
            offset=number("Number of the first line to return, counted from 1.", minimum=1),
            limit=number("Most lines to return.", minimum=1, maximum=2000),
        ),
    ),
    tool(
        "write_file",
        "Write a file, and replace the one that is there. A file that exists must have been read in this chat "
        "first, else the call fails. Prefer `edit_file` for changes to existing files. Don't make files that nobody "
        "asked for, such as summaries or documentation.",
        record(
            "path",
            "content",
            path=text(PATH),
            content=text("The whole content of the file."),
            executable=flag("Whether the file may be run as a program."),
        ),
    ),
    tool(
        "edit_file",
        "Replace an exact piece of text in a file. `old` must occur exactly once, with the same indentation as in "
        "the file and without the line numbers that `read_file` puts in front; otherwise nothing is changed: "
        "give more lines around the place, or set `every`.",
        record(
            "path",
            "old",
            "new",
            path=text(PATH),
            old=text("The text to be replaced."),
            new=text("The text to put in its place; it must differ from `old`."),
            every=flag("Replace every occurrence, for instance to rename a variable."),
        ),
    ),
    tool(
        "apply_patch",
        "Apply a unified diff to one or more files. Context lines must match. Use it for changes across files that "
        "belong together; a hunk that doesn't fit makes the whole patch fail, and the answer says which.",
        record(
            "patch",
            patch=text("The patch, with `---` and `+++` lines and paths relative to `root`."),
            root=text("Folder that the paths are relative to. The project's root when left out."),
            dry_run=flag("Only tell whether it would apply."),
        ),
    ),
    tool(
        "list_folder",
        "List files and folders, with sizes and times, folders first. What the project's ignore files exclude is "
        "left out unless asked for.",
        record(
            "path",
            path=text("Absolute path of the folder."),
            depth=number("Levels of folders below it to list too.", minimum=0, maximum=5, default=0),
            hidden=flag("List names that begin with a dot too."),
            ignore=list_of(text("A glob pattern."), "Patterns of names to leave out, such as `*.pyc`."),
        ),
    ),
    tool(
        "move_file",
        "Rename or move a file or folder. Fails if the target exists, unless `overwrite` is set.",
        record(
            "source",
            "target",
            source=text("Absolute path of what is moved."),
            target=text("Absolute path that it will have."),
            overwrite=flag("Replace the target if there is one."),
        ),
    ),
    tool(
        "delete_file",
        "Delete a file, or a folder with all that is in it. This can't be undone: ask the user first, unless the "
        "file was made in this conversation.",
        record("path", path=text(PATH), recursive=flag("Needed for a folder that isn't empty.")),
    ),
    tool(
        "edit_notebook",
        "Change one cell of a Jupyter notebook: replace its source, insert a cell or delete one.",
        record(
            "path",
            "cell",
            path=text(PATH),
            cell=number("Index of the cell, counted from 0.", minimum=0),
            source=text("The new source; not needed to delete."),
            kind=text("Kind of the cell.", enum=["code", "markdown"], default="code"),
            mode=text("What to do.", enum=["replace", "insert", "delete"], default="replace"),
        ),
    ),
)

SEARCHING = (
    tool(
        "find_files",
        "Find files by a glob pattern such as `**/*.py` or `src/**/test_*.ts`, the most recently changed first. Fast "
        "in projects of any size. For a search that will take several rounds, start a `subagent` instead.",
        record(
            "pattern",
            pattern=text("The pattern; `**` stands for any number of folders."),
            path=text("Folder to search. The project's root when left out."),
            limit=number("Most paths to return.", minimum=1, maximum=1000, default=100),
        ),
    ),
    tool(
        "search_text",
        "Search the content of files with a regular expression, in the dialect of ripgrep: braces that are meant "
        "as such need a backslash. Always use this tool rather than `grep` in a shell: it knows what to ignore and "
        "which files may be read.",
        record(
            "pattern",
            pattern=text("The regular expression."),
            path=text("File or folder to search. The project's root when left out."),
            glob=text("Only search files whose paths match, for instance `*.{ts,tsx}`."),
            mode=text(
                "What to return: matching lines with their numbers, only the paths, or a count for each file.",
                enum=["lines", "paths", "counts"],
                default="paths",
            ),
            context={
                "description": "Lines around each match: a number for both sides, or one for each.",
                "anyOf": [
                    {"type": "integer", "minimum": 0, "maximum": 50},
                    record(before=number("Lines before."), after=number("Lines after.")),
                ],
            },
            ignore_case=flag("Treat upper and lower case as equal."),
            multiline=flag("Let patterns span lines."),
            limit=number("Most lines or paths to return.", minimum=1, default=250),
        ),
    ),
    tool(
        "find_symbol",
        "Ask the language server for a symbol: where it is defined, who refers to it, which types implement it, or "
        "what calls it. More exact than a text search where a server is running for the language.",
        record(
            "query",
            "relation",
            query=record(
                "name",
                name=text("Name of the symbol, such as `Session.serve`."),
                path=text("File in which the name is meant, where it is ambiguous."),
                line=number("Line in that file, counted from 1.", minimum=1),
            ),
            relation=text(
                "What to look for.",
                enum=["definition", "references", "implementations", "callers", "callees"],
            ),
        ),
    ),
)

RUNNING = (
    tool(
        "run_command",
        "Run a command in a shell that keeps its working folder and variables between calls. The output is cut after "
        "30,000 characters. Don't use it to read, search or change files where there is a tool for it; quote paths "
        "with spaces. Never commit, push or change the git configuration unless asked to. A command that "
        "waits for input hangs until its time is up.",
        record(
            "command",
            "description",
            command=text("The command line."),
            description=text("What it does, in five to ten words, for the user who is asked to allow it."),
            timeout_ms=number("Milliseconds until it is killed.", minimum=1, maximum=600000, default=120000),
            background=flag("Return at once, with an id for `read_output`; the command goes on."),
            environment={
                "type": "object",
                "description": "Variables to set for this command.",
                "additionalProperties": {"type": "string"},
            },
        ),
    ),
    tool(
        "read_output",
        "Read what a background command has written since it was last asked, and whether it has ended.",
        record(
            "id",
            id=text("The id that `run_command` returned.", pattern="^[a-z0-9]{6}$"),
            filter=text("Only return lines that match this regular expression; the others are lost."),
            wait_ms=number("Wait up to so many milliseconds for new output.", minimum=0, maximum=60000),
        ),
    ),
    tool(
        "stop_command",
        "End a background command: politely first, and by force when it hasn't ended three seconds later.",
        record("id", id=text("The id that `run_command` returned.")),
    ),
    tool(
        "run_tests",
        "Run the project's tests and return those that failed, each with its message and the place in the code. "
        "Knows pytest, cargo, go, jest and vitest by the files in the project's root.",
        record(
            selection=list_of(text("A file, or a test's full name."), "What to run; everything when left out."),
            failed_first=flag("Begin with the tests that failed last time.", default=True),
            stop_after=number("Stop after so many failures.", minimum=1),
            coverage=flag("Measure which lines were run."),
        ),
    ),
)

PLANNING = (
    tool(
        "fetch_page",
        "Fetch a public web page and answer a question about it. The page is turned into text and cut to what fits. "
        "Only `https` addresses; those of private networks are refused. Redirects to another host are reported, "
        "not followed.",
        record(
            "url",
            "question",
            url=text("The full address.", format="uri"),
            question=text("What to find out from the page."),
        ),
    ),
    tool(
        "search_web",
        "Search the web and return titles, addresses and extracts. For what may have changed since training: "
        "versions, news, error messages of new releases. Name the sources in the answer.",
        record(
            "query",
            query=text("The search words.", minLength=2),
            domains=record(
                allow=list_of(text("A domain."), "Only return pages from these."),
                block=list_of(text("A domain."), "Never return pages from these."),
            ),
            recent_days=number("Only pages from so many days back.", minimum=1),
        ),
    ),
    tool(
        "plan",
        "Keep a list of what is to be done, visible to the user. Use it for work of three steps or more. An "
        " item is done only when its tests pass. Each call replaces the whole list.",
        record(
            "items",
            items=list_of(
                record(
                    "content",
                    "state",
                    content=text("What is to be done, as an order: `Fix the parser`."),
                    state=text("How far it is.", enum=["pending", "in_progress", "done", "dropped"]),
                    notes=list_of(text("A note."), "What was found out on the way."),
                ),
                "All items, in order.",
            ),
        ),
    ),
    tool(
        "ask_user",
        "Ask one short question, and wait for the answer. Only where the task can't go on without it.",
        record(
            "question",
            question=text("The question."),
            choices=list_of(text("An answer."), "Answers to choose from.", maxItems=4),
        ),
    ),
    tool(
        "subagent",
        "Hand a task to an agent of its own, which has the same tools, sees nothing of this chat, and returns "
        "one message. Good for searches whose results would fill the context, and for several tasks at once. Tell it "
        "everything that it needs, and whether it shall write code or only find out.",
        record(
            "task",
            "prompt",
            task=text("The task in three to five words."),
            prompt=text("The whole task, with paths, and what to report."),
            kind=text("Which agent.", enum=["general", "explorer", "reviewer"], default="general"),
            limits=record(
                turns=number("Most turns.", minimum=1, maximum=200),
                tools=list_of(text("Name of a tool."), "Tools that it may use; all when left out."),
            ),
        ),
    ),
)

AGENT_TOOLS: tuple[dict[str, Any], ...] = (*FILES, *SEARCHING, *RUNNING, *PLANNING)
"""In the shape of the OpenAI API, which is also that of chat templates."""


def anthropic_tools() -> tuple[dict[str, Any], ...]:
    """The same tools in the shape of the Anthropic API."""
    return tuple(
        {
            "name": each["function"]["name"],
            "description": each["function"]["description"],
            "input_schema": each["function"]["parameters"],
        }
        for each in AGENT_TOOLS
    )


def shuffled(value: Any, seed: int) -> Any:
    """The same JSON value with the keys of all its objects in another order, as clients send whose maps have none."""
    return _shuffled(value, random.Random(seed))


def _shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, Mapping):
        keys = list(value)
        chance.shuffle(keys)
        return {key: _shuffled(value[key], chance) for key in keys}
    if isinstance(value, list | tuple):
        return type(value)(_shuffled(item, chance) for item in value)
    return value
