"""JSON files against the schemas beside this module (submission.schema.json, track.schema.json)."""

import functools
import itertools
import json
from pathlib import Path

from golf.core.packages import missing

ERRORS_SHOWN = 20


@functools.cache
def validator(name: str):
    """Of <name>.schema.json (JSON Schema 2020-12)."""
    try:
        import jsonschema  # here: commands that read no such file need not have it
    except ImportError:
        raise missing("jsonschema") from None
    path = Path(__file__).with_name(f"{name}.schema.json")
    plain = jsonschema.Draft202012Validator
    # JSON Schema takes 1.0 for an integer; bytes and seeds are written as whole numbers here.
    types = plain.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    strict = jsonschema.validators.extend(plain, type_checker=types)
    schema = json.loads(path.read_text(encoding="utf-8"))
    return strict(inlined(schema, {f"#/$defs/{name}": part for name, part in schema["$defs"].items()}))


def inlined(value, parts: dict):
    """A schema with its parts where $ref names them: to look one up takes as long as to check by it."""
    if isinstance(value, list):
        return [inlined(one, parts) for one in value]
    if not isinstance(value, dict):
        return value
    value = parts.get(value.get("$ref"), {}) | value
    return {key: inlined(one, parts) for key, one in value.items() if key != "$ref"}


def errors(name: str, value) -> list[str]:
    """What is wrong with `value`, as 'seeds[0].val_bpb: ...'; the first ERRORS_SHOWN."""
    try:
        found = list(itertools.islice(validator(name).iter_errors(value), ERRORS_SHOWN))
    except RecursionError:
        return ["nests too deep"]
    return [f"{error.json_path.removeprefix('$').lstrip('.') or 'it'}: {short(error)}" for error in found]


def short(error) -> str:
    """jsonschema's message; for a value that would fill pages, what was asked of it."""
    text = error.message
    return text if len(text) <= 160 else f"must hold {error.validator}: {str(error.validator_value)[:80]}"
