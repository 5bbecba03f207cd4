"""Documents as JSON text and back, and the JSON Schema that they follow.

JSON has no NaN and no infinity: they are the texts "NaN", "Infinity" and "-Infinity" in the place of a number.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pytest_overfit.errors import OverfitError
from pytest_overfit.report.record.document import VERSION, Document
from pytest_overfit.report.record.json_tree import NotATree, parse_tree, wide_integer
from pytest_overfit.result import OverfitResult

SCHEMA_ID = f"urn:pytest-overfit:record:{VERSION}"
NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
REPEATED = {"record"}  # the evidence has that of its result: written once
MOST_PROBLEMS = 5


class _File(BaseModel):
    """A document in its file."""

    model_config = ConfigDict(ser_json_inf_nan="strings", extra="forbid", title="pytest-overfit record")

    overfit: Document


class _Verdict(BaseModel):
    """A result on its way to another rank."""

    model_config = ConfigDict(ser_json_inf_nan="strings", extra="forbid")

    result: OverfitResult


class _Schema(GenerateJsonSchema):
    """Numbers may be no numbers, and of the evidence nothing is promised but that it is an object."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [{"type": "number"}, {"enum": list(NO_NUMBERS)}]}

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        if schema["cls"].__name__ == "Evidence":
            return {"title": "Evidence", "type": "object"}
        return super().dataclass_schema(schema)


def to_json(document: Document) -> str:
    """The text of a document.

    Example:
        >>> from_json(to_json(document)) == document        # doctest: +SKIP
        True
    """
    evidence = {"evidence": REPEATED}
    left_out: Any = {"overfit": {"result": {**evidence, "runs": {"__all__": evidence}}}}
    return _File(overfit=document).model_dump_json(exclude=left_out)


def result_to_json(result: OverfitResult) -> bytes:
    """A result alone, for another process of the same session.

    Example:
        >>> result_from_json(result_to_json(result)) == result        # doctest: +SKIP
        True
    """
    return _Verdict(result=result).model_dump_json().encode()


def result_from_json(data: bytes) -> OverfitResult:
    """The result in a text of ``result_to_json``."""
    return _shared(_Verdict.model_validate_json(data).result)


def from_json(text: str | bytes, *, where: str = "the text") -> Document:
    """A document out of its text.

    Raises:
        OverfitError: it is no document of this version; the first problems are listed with their places.
    """
    try:
        tree = parse_tree(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    except NotATree as error:
        raise _wrong(str(error), where) from None
    inner = tree.get("overfit") if isinstance(tree, dict) else None
    if not isinstance(inner, dict):
        raise _wrong("JSON of another kind", where)
    if inner.get("version") != VERSION:
        raise _wrong(f"a record of version {inner.get('version')!r:.40}", where)
    result = inner.get("result")
    if isinstance(result, dict):
        for run in (result, *(run for run in _listed(result.get("runs")) if isinstance(run, dict))):
            if isinstance(run.get("evidence"), dict):
                run["evidence"] = {**run["evidence"], **{name: run.get(name) for name in REPEATED}}
    try:
        document = _File.model_validate(tree, strict=False).overfit
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in error.errors()[:MOST_PROBLEMS]]
        raise _wrong("; ".join(problems), where) from None
    if (place := wide_integer(document)) is not None:
        raise _wrong(f"{place}: a whole number beyond 64 bits", where)
    return document if document.result is None else replace(document, result=_shared(document.result))


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record file."""
    made = _File.model_json_schema(schema_generator=_Schema, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **made}


def _shared(result: OverfitResult) -> OverfitResult:
    """Evidence that holds the very record of its result."""
    evidence = result.evidence and replace(result.evidence, record=result.record)
    return replace(result, evidence=evidence, runs=tuple(map(_shared, result.runs)))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _wrong(found: str, where: str) -> OverfitError:
    return OverfitError(
        found,
        where=where,
        allowed=f"a record.json of pytest-overfit, version {VERSION}",
        hint="name a record.json that `pytest --overfit-report DIR` wrote, or its folder",
    )


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
