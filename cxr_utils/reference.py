"""The reference of all parameters, in Markdown, from the model that checks them."""

from __future__ import annotations

from typing import Any

from .parameters import Params

HEADER = """# Parameters

Generated from `cxr_utils/parameters.py` by `make docs`; do not edit. A profile in `params/` states only what it changes;
`--set SECTION.KEY=VALUE` overrides one value of a run. Unknown keys, wrong types and values out of range are refused before anything runs.
[method.md](method.md) says what the *stress validation* is and why models are as they are, [outputs.md](outputs.md) what the operating
points are, [data.md](data.md) what the *phantom* and the folders are.
"""
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
TYPES = {"boolean": "true, false", "integer": "whole number", "number": "number", "string": "text"}
MANY = 8  # choices that are counted, not listed


def reference() -> str:
    """Return every parameter with its default, what it may be, and its meaning, as Markdown."""
    schema = Params.model_json_schema()
    sections = {
        name: schema["$defs"][field["$ref"].split("/")[-1]]
        for name, field in schema["properties"].items()
        if "$ref" in field
    }
    single = {name: field for name, field in schema["properties"].items() if "$ref" not in field}
    lines = [HEADER, "## At the top", "", *_table("", single), ""]
    for name, section in sections.items():
        lines += [
            f"## `{name}`",
            "",
            section["description"].splitlines()[0],
            "",
            *_table(f"{name}.", section["properties"]),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _table(prefix: str, fields: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{prefix}{name}` | `{_shown(field['default'])}` | {_allowed(field)} | {field['description']} |"
        for name, field in fields.items()
    ]
    return ["| parameter | default | may be | meaning |", "| --- | --- | --- | --- |", *rows]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(field: dict[str, Any]) -> str:
    if "enum" in field:
        choices = [f"`{choice}`" for choice in field["enum"]]
        return (
            ", ".join(choices)
            if len(choices) < MANY
            else f"one of {len(choices)} names of `keras.applications`"
        )
    return ", ".join(
        [
            TYPES[field["type"]],
            *(f"{sign} {field[bound]}" for bound, sign in BOUNDS.items() if bound in field),
        ]
    )
