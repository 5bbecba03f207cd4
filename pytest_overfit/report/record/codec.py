"""Documents as JSON text and back, and the JSON Schema that they follow.

JSON has no NaN and no infinity: they are the texts "NaN", "Infinity" and "-Infinity" in the place of a number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.errors import OverfitError
from pytest_overfit.report.record.document import VERSION, Document
from pytest_overfit.report.record.json_tree import NotATree, parse_tree, wide_integer
from pytest_overfit.result import OverfitResult

SCHEMA_ID = f"urn:pytest-overfit:record:{VERSION}"
NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
REPEATED = {"record"}  # the evidence has that of its result: written once
MOST_PROBLEMS = 5


class _File(BaseModel):
    """A document in its file, and its verdict for whoever reads no more than that."""

    model_config = ConfigDict(ser_json_inf_nan="strings", extra="forbid", title="pytest-overfit record")

    overfit: Document
    verdict: Literal["passed", "failed"] | None = None  # files of 0.1 have none


class _Verdict(BaseModel):
    """A result on its way to another rank."""

    model_config = ConfigDict(ser_json_inf_nan="strings", extra="forbid")

    result: OverfitResult


class _Schema(GenerateJsonSchema):
    """Numbers may be no numbers. What the causes rest on is an object, and no more is promised."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [{"type": "number"}, {"enum": list(NO_NUMBERS)}]}

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        if schema["cls"] is Evidence:
            return {"type": "object", "title": "Evidence", "description": "No promises: it may change at any time."}
        return super().dataclass_schema(schema)


def to_json(document: Document) -> str:
    """The text of a document.

    Example:
        >>> from_json(to_json(document)) == document        # doctest: +SKIP
        True
    """
    evidence = {"evidence": REPEATED}
    left_out: Any = {"overfit": {"result": {**evidence, "runs": {"__all__": evidence}}}}
    return _File(overfit=document, verdict=document.verdict).model_dump_json(exclude=left_out)


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
    results = [*_results(inner)]
    for each in results:
        if isinstance(each.get("evidence"), dict):
            each["evidence"] = {**each["evidence"], **{name: each.get(name) for name in REPEATED}}
    try:
        document = _validated(tree, results)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in error.errors()[:MOST_PROBLEMS]]
        raise _wrong("; ".join(problems), where) from None
    if (place := wide_integer(document)) is not None:
        raise _wrong(f"{place}: a whole number beyond 64 bits", where)
    return document if document.result is None else replace(document, result=_shared(document.result))


def _results(inner: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The result of a document and those of its seeds."""
    result = inner.get("result")
    if isinstance(result, dict):
        runs = result.get("runs")
        yield from (result, *(run for run in (runs if isinstance(runs, list) else ()) if isinstance(run, dict)))


def _validated(tree: Any, results: list[dict[str, Any]]) -> Document:
    """The document; evidence of another release is left out, since nobody was promised any of it."""
    try:
        return _File.model_validate(tree, strict=False).overfit
    except ValidationError as error:
        if not all("evidence" in item["loc"] for item in error.errors()):
            raise
    for each in results:
        if isinstance(told := each.get("evidence"), dict):
            shared = {name: each.get(name) for name in ("findings", *REPEATED)}
            each["evidence"] = {**shared, "limits": {}, "interrupted": told.get("interrupted") is True}
    return _File.model_validate(tree, strict=False).overfit


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record file."""
    made = _File.model_json_schema(schema_generator=_Schema, mode="serialization")
    made["properties"]["verdict"] = {"enum": ["passed", "failed"], "title": "Verdict"}
    made["required"] = ["overfit", "verdict"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **made}


def _shared(result: OverfitResult) -> OverfitResult:
    """Evidence that holds the very record of its result."""
    evidence = result.evidence and replace(result.evidence, record=result.record)
    return replace(result, evidence=evidence, runs=tuple(map(_shared, result.runs)))


def _wrong(found: str, where: str) -> OverfitError:
    return OverfitError(
        found,
        where=where,
        allowed=f"a record.json of pytest-overfit, version {VERSION}",
        hint="name a record.json that `pytest --overfit-report DIR` wrote, or its folder",
    )


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
