"""YAML files and --flags to settings, and every mistake in them to one line.

`load(Settings, argv, command)` reads `--config FILE` first (with `base: other.yaml` included), then
the flags on top. Unknown keys, wrong types and missing values end in a SettingsError that names the
key as the user spelled it and the nearest valid one.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import tyro
import yaml
from pydantic import BaseModel, ValidationError, create_model

from pivot.errors import SettingsError
from pivot.settings.parts import EncoderSettings, FrontEndSettings, HearsSettings

S = TypeVar("S", bound=BaseModel)

DECIDES = ("encoder.fusion",)  # of audio.views
# Flags, not sub-commands, choose the kind of a part; booleans read `--resume` and `--no-resume`.
TYRO = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


def load(kind: type[S], argv: list[str], command: str) -> S:
    """Read the settings of `command` from its arguments; raises SettingsError, one line."""
    values, argv = _take_config(argv)
    named = _named_keys(values, argv)
    argv = _choose_kinds(kind, values, argv)
    _tell_kinds(kind)
    settings = _run_tyro(kind, _partial(kind, values), argv, command)
    if isinstance(settings, HearsSettings) and bool(getattr(settings, "model", None)):
        settings._named = named  # what is said counts beside a model, also where it is the default
    return settings


def read_yaml(path: str | Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """One YAML file as nested dictionaries, merged over the file that its `base:` names."""
    path = Path(path)
    if path.resolve() in seen:
        raise SettingsError(f"--config {path}: `base:` goes in a circle; remove one of them")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise SettingsError(f"--config {path} is not YAML: {where}") from error
    if not isinstance(values, dict):
        found = type(values).__name__
        raise SettingsError(f"--config {path} must hold `key: value` lines, not a {found}")
    base = values.pop("base", None)
    if base is None:
        return values
    return _merge(read_yaml(path.parent / str(base), (*seen, path.resolve())), values)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries; a part of another `kind` replaces the one below whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and _same_kind(old, value):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _same_kind(below: dict[str, Any], above: dict[str, Any]) -> bool:
    return "kind" not in above or above["kind"] == below.get("kind")


def _take_config(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split `--config FILE` (or --config=FILE) from the arguments and read it."""
    rest: list[str] = []
    values: dict[str, Any] = {}
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--config" or argument.startswith("--config="):
            path = argument.partition("=")[2] or next(arguments, "")
            if not path:
                raise SettingsError("--config needs a file: --config configs/tiny/pretrain_va.yaml")
            values = _merge(values, read_yaml(path))
            values["__file__"] = path
        else:
            rest.append(argument)
    return values, rest


def _choose_kinds(kind: type[BaseModel], values: dict[str, Any], argv: list[str]) -> list[str]:
    """Apply `--part.kind VALUE` to `values` and take it out of the arguments.

    tyro would make such a choice a sub-command; here it is a flag like any other. What decides
    the defaults of another part is taken with it.
    """
    parts = _tagged(kind)
    rest, arguments = [], iter(argv)
    for argument in arguments:
        flag, _, value = argument.partition("=")
        part = flag.removeprefix("--").removesuffix(".kind")
        if flag.endswith(".kind") and part in parts:
            chosen = value or next(arguments, "")
            kinds = _kinds(kind, part)
            if chosen not in kinds:
                raise SettingsError(f"{flag} {chosen!r} is not known; take {', '.join(kinds)}")
            values.update(_merge(values, {part: {"kind": chosen}}))
        elif (name := flag.removeprefix("--")) in DECIDES and name.partition(".")[0] in parts:
            part, _, key = name.partition(".")
            values.update(_merge(values, {part: {key: value or next(arguments, "")}}))
        else:
            rest.append(argument)
    return rest


def _named_keys(values: dict[str, Any], argv: list[str]) -> frozenset[str]:
    """Dotted keys that a file or a flag names; not those of a part that a run wrote down whole."""
    flags = [argument.partition("=")[0] for argument in argv if argument.startswith("--")]
    found = {flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags}
    found = {name.replace(".no_", ".") for name in found}
    for part, keys in values.items():
        if isinstance(keys, dict) and not _is_whole(keys):
            found |= {f"{part}.{key}" for key in keys}
    return frozenset(found)


def _is_whole(keys: dict[str, Any]) -> bool:
    """Whether these are all the fields of a front end or an encoder, as settings.yaml has them."""
    parts = (*get_args(get_args(FrontEndSettings)[0]), *get_args(get_args(EncoderSettings)[0]))
    return any(keys.keys() >= part.model_fields.keys() for part in parts)


def _tell_kinds(kind: type[BaseModel]) -> None:
    """Let the help of every `--part.kind` name all kinds; tyro knows the chosen one alone."""
    for part in _tagged(kind):
        options: Any = kind.model_fields[part].annotation
        for option in options.__args__:
            kinds = ", ".join(_kinds(kind, part))
            option.model_fields["kind"].description = f"{kinds}; each has options of its own"


def _tagged(kind: type[BaseModel]) -> list[str]:
    """Names of the parts that are a choice by `kind`."""
    return [name for name, field in kind.model_fields.items() if field.discriminator == "kind"]


def _kinds(kind: type[BaseModel], part: str) -> list[str]:
    """Values of `kind` that a tagged part can take."""
    options = kind.model_fields[part].annotation
    return [option.model_fields["kind"].default for option in options.__args__]  # type: ignore[union-attr]


def _partial(kind: type[S], values: dict[str, Any]) -> S:
    """Defaults with the file's values on top; required fields that are missing stay open."""
    source = values.pop("__file__", None)
    required = {n: (Any, tyro.MISSING) for n, f in kind.model_fields.items() if f.is_required()}
    relaxed: type[S] = create_model(kind.__name__, __base__=kind, **required)  # type: ignore[call-overload]
    try:
        checked = relaxed.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{_where(source)}{_first_error(error, kind)}") from error
    return kind.model_construct(**{name: getattr(checked, name) for name in kind.model_fields})


def _where(source: str | None) -> str:
    return f"--config {source}: " if source else ""


def _first_error(error: ValidationError, kind: type[BaseModel]) -> str:
    """First complaint of pydantic as one line in the user's spelling."""
    first = error.errors()[0]
    # a location in a tagged union holds the tag as well, which is no key of the file
    tags = {tag for part in _tagged(kind) for tag in _kinds(kind, part)}
    path = [str(p) for p in first["loc"] if p not in tags]
    shown = ".".join(path)
    if first["type"] == "extra_forbidden":
        valid = _siblings(kind, [str(p) for p in first["loc"]])
        if elsewhere := _of_other_kinds(kind, shown):
            return elsewhere
        near = difflib.get_close_matches(shown, valid, 1, 0.5)
        hint = f"perhaps you meant {near[0]}" if near else f"valid keys: {', '.join(valid)}"
        return f"unknown key {shown}; {hint}"
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # what a part says of its keys together names them itself
        return f"{shown}: {message}" if shown else message
    return f"{shown}: {message}, not {first['input']!r}" if shown else message


def _siblings(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Dotted keys that would be valid where the last key of pydantic's location `path` is not."""
    if len(path) == 1:
        return list(kind.model_fields)
    annotation: Any = kind.model_fields[path[0]].annotation
    parts = [
        o for o in getattr(annotation, "__args__", (annotation,)) if hasattr(o, "model_fields")
    ]
    tagged = [
        p for p in parts if "kind" in p.model_fields and p.model_fields["kind"].default in path
    ]
    names = dict.fromkeys(name for part in tagged or parts for name in part.model_fields)
    return [f"{path[0]}.{name}" for name in names]


def _of_other_kinds(kind: type[BaseModel], name: str) -> str:
    """One line for a dotted key that other kinds of its part have; empty where none has it."""
    part, _, key = name.partition(".")
    if part not in _tagged(kind):
        return ""
    options: Any = kind.model_fields[part].annotation
    kinds = [o.model_fields["kind"].default for o in options.__args__ if key in o.model_fields]
    if not kinds:
        return ""
    return f"{name} goes with {part}.kind {' or '.join(kinds)}; name it, or leave {name} out"


def _run_tyro(kind: type[S], default: S, argv: list[str], command: str) -> S:
    """Let tyro read the flags; squeeze its boxed message into one line when it refuses."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, default=default, args=argv, prog=command, config=TYRO)
    except SystemExit as stop:
        if not stop.code:
            raise
        line = _one_line(said.getvalue(), command)
        if unknown := re.match(r"Unrecognized options: --([\w.-]+)", line):
            line = _of_other_kinds(kind, unknown[1].replace("-", "_")) or line
        raise SettingsError(line) from None


def _inside(box: str) -> list[str]:
    """Lines inside tyro's box; where the terminal has ASCII alone, it is a title between rules."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    if lines:
        return lines
    rows = [line.strip() for line in box.splitlines()]
    rules = [number for number, row in enumerate(rows) if re.fullmatch(r"-{5,}", row)]
    return rows[rules[0] + 1 :] if rules else rows


def _one_line(box: str, command: str) -> str:
    """tyro's boxed complaint as one line: what is wrong and what was perhaps meant."""
    lines = _inside(re.sub(r"\x1b\[[0-9;]*m", "", box))
    sections = [" ".join(part.split()) for part in re.split(r"─{3,}|-{5,}", " ".join(lines))]
    first = sections[0]
    meant = re.search(r"Perhaps you meant: (--[\w.-]+)", " ".join(sections))
    out_of_range = re.search(
        r"Error parsing (\S+): .*? errors? for \w+ (?:([a-z_]+)(?:\.\S+)? )?(.*?) "
        r"\[type=.*?input_value=(.*?), input_type",
        first.replace("Value error, ", ""),
    )
    if first.startswith("Missing from"):
        names = (re.match(r"--[\w.-]+|[A-Z_]{2,}\b", line) for line in lines)
        first = f"missing: {', '.join(name[0] for name in names if name)}"
    elif out_of_range:
        part, key, message, value = out_of_range.groups()
        if key and value.startswith("{"):  # said of a part's keys together: that word is no flag
            key, message = "", f"{key} {message}"
        dotted = f"{part}.{key}" if part.islower() else f"{key}"
        flag = f"--{dotted.replace('_', '-')}: " if key else ""
        value = f", not {value}" if key else ""
        first = f"{flag}{message}{value}"
    elif meant:
        first = f"{first}; perhaps you meant {meant[1]}"
    return f"{first} (see {command} --help)"
