from __future__ import annotations

from pathlib import Path

import pytest

from stoker.daemon.config import ConfigurationError, load_client_settings, load_settings, table
from stoker.daemon.settings import KEYS, Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stoker.toml"
    path.touch()
    return path


def refusal(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(flags or {}, environ or {}, file)
    assert "\n" not in str(caught.value)
    return caught.value


def test_without_any_source_everything_is_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing needs to be configured, and then nothing is warned of."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert load_settings({}, {}) == (Settings(), ())


def test_flag_beats_environment_beats_file_beats_default(file: Path) -> None:
    """Each source wins over the next one, key by key."""
    file.write_text('port = 1\nmax_batch = 2\nmax_waiting = 3\nhost = "localhost"')
    environ = {"STOKER_PORT": "4", "STOKER_MAX_BATCH": "5"}
    settings, _ = load_settings({"port": 6, "host": None}, environ, file)

    assert (settings.port, settings.max_batch, settings.max_waiting) == (6, 5, 3)
    assert (settings.host, settings.restart_limit) == ("localhost", 5)


def test_the_file_is_named_by_flag_else_environment_else_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--config` wins over `STOKER_CONFIG`, which wins over `config.toml` in the platform's place."""
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / name)
    (tmp_path / "stoker").mkdir()
    for name, port in (("stoker/config", 1), ("env", 2), ("flag", 3)):
        (tmp_path / f"{name}.toml").write_text(f"port = {port}")
    environ = {"STOKER_CONFIG": str(tmp_path / "env.toml")}

    assert load_settings({}, {})[0].port == 1
    assert load_settings({}, environ)[0].port == 2
    assert load_settings({}, environ, tmp_path / "flag.toml")[0].port == 3


@pytest.mark.parametrize("named_by", ["flag", "environment"])
def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path, named_by: str) -> None:
    """Who names a file wants that one; the message says which, and what to do."""
    missing = tmp_path / "missing.toml"
    error = refusal(file=missing) if named_by == "flag" else refusal(environ={"STOKER_CONFIG": str(missing)})

    assert str(missing) in str(error)
    assert "--config" in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"port = ", "not TOML"),
        (b"port = 1\nport = 2", "not TOML"),
        (b"\xff", "not UTF-8"),
        (None, "can't be read"),
    ],
)
def test_a_file_that_can_not_be_read_is_an_error(tmp_path: Path, content: bytes | None, words: str) -> None:
    """Broken TOML, broken UTF-8 and a directory are named as such, with the file."""
    path = tmp_path / "stoker.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    error = refusal(file=path)

    assert words in str(error)
    assert error.source == str(path)


@pytest.mark.parametrize(
    ("line", "hint"), [("prot = 1", "did you mean 'port'?"), ("[server]\nport = 1", "known are: model, ")]
)
def test_an_unknown_key_is_an_error_with_a_hint(file: Path, line: str, hint: str) -> None:
    """A key that does not exist is refused, with the one that was likely meant, or all there are."""
    file.write_text(line)
    error = refusal(file=file)

    assert "unknown key" in str(error)
    assert hint in str(error)


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "source", "allowed"),
    [
        ({"port": 70000}, {}, "", "--port", "a whole number from 0 to 65535"),
        ({}, {"STOKER_PORT": "http"}, "", "STOKER_PORT", "a whole number from 0 to 65535"),
        ({}, {}, 'port = "1"', "stoker.toml", "a whole number from 0 to 65535"),
        ({}, {}, "port = true", "stoker.toml", "a whole number from 0 to 65535"),
        ({}, {}, "chunk_seconds = nan", "stoker.toml", "a number of seconds from 0.01 to 60"),
        ({}, {}, "stop_grace_sec = inf", "stoker.toml", "a number of seconds over 0"),
        ({}, {}, "warmup_timeout_sec = -1", "stoker.toml", "a number of seconds over 0"),
        ({}, {}, "kv_cache_warmup = 1", "stoker.toml", "true or false"),
        ({}, {"KV_CACHE_WARMUP": "maybe"}, "", "KV_CACHE_WARMUP", "true or false"),
        ({"log_level": "loud"}, {}, "", "--log-level", "one of debug, info, warning, error"),
        ({}, {}, "aliases = 'one'", "stoker.toml", "a list of text"),
        ({}, {}, "log_dir = 7", "stoker.toml", "a path"),
        ({}, {}, "log_dir = ''", "stoker.toml", "a path"),
        ({}, {}, "restart_limit = 0", "stoker.toml", "a whole number of at least 1"),
        ({}, {"STOKER_PORT": "-1"}, "port = 5", "STOKER_PORT", "a whole number"),
        ({"port": 5}, {"STOKER_PORT": "-1"}, "", "STOKER_PORT", "a whole number"),
    ],
)
def test_a_bad_value_is_an_error_that_names_everything(
    file: Path, *, flags: dict[str, object], environ: dict[str, str], toml: str, source: str, allowed: str
) -> None:
    """The message has the key, the value, where it came from and what is allowed, also where another source wins."""
    file.write_text(toml)
    error = refusal(flags, environ, file)

    assert error.key is not None
    assert str(error).startswith(f"{error.key} = ")
    assert error.source.endswith(source)
    assert error.source in str(error)
    assert f"allowed is {allowed}" in str(error)


def test_a_long_bad_value_is_cut_short(file: Path) -> None:
    """A value of any length leaves the message readable."""
    assert len(str(refusal({"log_level": "x" * 100_000}, file=file))) < 300


@pytest.mark.parametrize(
    ("text", "value"), [("0", False), ("no", False), ("OFF", False), ("1", True), ("True", True), ("yes", True)]
)
def test_truths_of_the_environment_have_many_names(file: Path, text: str, value: bool) -> None:
    """`KV_CACHE_WARMUP` takes what people write for yes and no."""
    assert load_settings({}, {"KV_CACHE_WARMUP": text}, file)[0].kv_cache_warmup is value


@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf", "1e999", "soon", "1,5"])
def test_a_bad_warmup_timeout_of_the_environment_is_a_warning_and_60(file: Path, text: str) -> None:
    """`WARMUP_TIMEOUT_SEC` never keeps the service down, whatever it says, and whatever the file says."""
    file.write_text("warmup_timeout_sec = 5")
    settings, warnings = load_settings({}, {"WARMUP_TIMEOUT_SEC": text}, file)

    assert settings.warmup_timeout_sec == 60.0
    assert len(warnings) == 1
    assert "WARMUP_TIMEOUT_SEC" in warnings[0]
    assert text in warnings[0]


def test_the_seeds_variables_are_heard(file: Path, tmp_path: Path) -> None:
    """The three inherited variables keep their names."""
    prompt = tmp_path / "prompt.md"
    prompt.write_text("Be brief.")
    environ = {"KV_CACHE_WARMUP": "0", "WARMUP_TIMEOUT_SEC": "1.5", "WARMUP_SYSTEM_FILE": str(prompt)}
    settings, warnings = load_settings({}, environ, file)

    assert (settings.kv_cache_warmup, settings.warmup_timeout_sec, settings.warmup_system_file) == (
        False,
        1.5,
        prompt,
    )
    assert warnings == ()


def test_a_bad_prompt_file_is_a_warning(file: Path, tmp_path: Path) -> None:
    """The daemon starts with the built-in prompt, and says so."""
    settings, warnings = load_settings({}, {"WARMUP_SYSTEM_FILE": str(tmp_path / "missing.md")}, file)

    assert settings.warmup_system_file == tmp_path / "missing.md"
    assert "missing.md" in warnings[0]


def test_an_empty_variable_is_an_unset_one(file: Path) -> None:
    """`STOKER_PORT= stoker run` means the next source, not an error."""
    file.write_text("port = 5")

    assert load_settings({}, {"STOKER_PORT": " "}, file)[0].port == 5


def test_a_list_in_the_environment_has_commas(file: Path) -> None:
    """`STOKER_ALIASES` is split, and blanks don't count."""
    assert load_settings({}, {"STOKER_ALIASES": "gpt-4o, local"}, file)[0].aliases == ("gpt-4o", "local")


def test_a_misspelt_variable_is_a_warning(file: Path) -> None:
    """A variable that is nearly one of ours is pointed out; others are nobody's business."""
    _, warnings = load_settings({}, {"STOKER_PROT": "1", "STOKER_ZZZ": "1", "PATH": "/bin"}, file)

    assert len(warnings) == 1
    assert "did you mean STOKER_PORT?" in warnings[0]


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", 0), ("::1", 0), ("localhost", 0), ("0.0.0.0", 1), ("mac.local", 1)]
)
def test_an_open_host_is_a_warning(file: Path, host: str, warned: int) -> None:
    """Leaving loopback is allowed, and not without a word."""
    settings, warnings = load_settings({"host": host}, {}, file)

    assert settings.host == host
    assert len(warnings) == warned


def test_relative_paths_mean_what_their_author_meant(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path in the file is relative to the file; a flag's to the working directory; `~` is home."""
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/me")
    file.write_text('log_dir = "logs"\nstate_dir = "~/state"')
    settings, _ = load_settings({"socket": Path("run/s")}, {}, file)

    assert settings.log_dir == file.parent / "logs"
    assert settings.state_dir == Path("/home/me/state")
    assert settings.control_socket == Path("/run/s")


def test_the_model_is_checked(file: Path) -> None:
    """A model that can't be one is refused with key, source and remedy."""
    error = refusal({"model": "./missing"}, file=file)

    assert (error.key, error.source) == ("model", "--model")
    assert "config.json" in str(error)


def test_settings_are_checked_against_each_other(file: Path) -> None:
    """A longest pause shorter than the first one is refused."""
    file.write_text("backoff_base_sec = 10\nbackoff_cap_sec = 5")

    assert "at least backoff_base_sec" in str(refusal(file=file))


@pytest.mark.parametrize("key", ["socket", "runtime_dir"])
def test_a_socket_path_too_long_for_the_kernel_is_an_error(file: Path, key: str) -> None:
    """The daemon says at once that it could not bind, and which key to shorten."""
    file.write_text(f'{key} = "/tmp/{"x" * 200}"')

    assert refusal(file=file).key == key


def test_clients_are_not_kept_from_asking_by_other_mistakes(file: Path) -> None:
    """To find the socket, only the keys that lead to it matter."""
    file.write_text('runtime_dir = "/tmp/r"\nport = -1\nnonsense = 1\nmodel = "./missing"')
    environ = {"STOKER_CONFIG": str(file)}

    assert load_client_settings(None, environ).control_socket == Path("/tmp/r/control.sock")
    assert load_client_settings(None, environ | {"STOKER_SOCKET": "/tmp/e"}).control_socket == Path("/tmp/e")
    assert load_client_settings(Path("/tmp/f"), environ | {"STOKER_SOCKET": "/tmp/e"}).socket == Path("/tmp/f")


def test_clients_are_told_of_a_mistake_that_concerns_them(file: Path) -> None:
    """A file that is no TOML, or a socket that is no path, is an error for clients too."""
    file.write_text("socket = 5")

    with pytest.raises(ConfigurationError, match="a path"):
        load_client_settings(None, {"STOKER_CONFIG": str(file)})


def test_the_documented_table_is_the_generated_one() -> None:
    """`docs/configuration.md` has each key as the code has it; print it with `python -m stoker.daemon.config`."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    assert table() in text
    assert all(f"`{name}`" in text for name in KEYS)
