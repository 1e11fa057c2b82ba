"""
The API's description for programs, in OpenAPI 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import celery_obs

from . import attempts, history, stacks
from .model import BODY, PARAMETERS, PREFIX, Deed, Question
from .table import DEEDS, QUESTIONS


__all__ = ["document"]


_ERROR: Final = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error", "message"],
}
_REFUSALS: Final = {
    "400": "The request is invalid; the message says why.",
    "401": "The token is missing or wrong.",
    "403": "Operations are off.",
    "404": "The channel, or the process, is unknown; or this exporter serves no workers, or keeps no history.",
    "408": "The body did not come in time.",
    "409": "The process cannot be asked; the message says what to do.",
    "413": "The body is too long.",
    "429": "The node was asked less than a second ago.",
    "504": "The process did not answer in time.",
    "503": "Redis does not answer or is not configured, or too many requests wait for it.",
}

_OF_DEEDS: Final = tuple(code for code in _REFUSALS if code not in {"409", "429", "504"})


def document() -> Mapping[str, Any]:
    """
    Describe everything in the table.
    """
    paths: dict[str, Any] = {f"{PREFIX}{each.path}": {"get": _question(each)} for each in QUESTIONS}
    paths |= {path: {"get": _described(part.described())} for path, part in ((attempts.PATH, attempts), (history.PATH, history))}
    paths[stacks.PATH] = {"post": _stack()}
    paths |= {f"{PREFIX}/{{channel}}{each.path}": {"post": _deed(each)} for each in DEEDS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "celery_obs exporter",
            "version": celery_obs.__version__,
            "description": "The latest attempts of tasks, and the history of two hours; the state of the cluster's channels, and the operations on them.",
        },
        "paths": paths,
        "components": {"securitySchemes": {"operations": {"type": "http", "scheme": "bearer"}}, "schemas": {"Error": _ERROR}},
    }


def _described(path: Mapping[str, Any]) -> Mapping[str, Any]:
    told = dict(path)
    return {**told, "responses": {"200": _answer("The answer.", told.pop("answer")), **_refusals("400", "404", "503")}}


def _stack() -> Mapping[str, Any]:
    fields = {name: schema for name, schema in BODY.items() if name != "seconds"}
    text, whole = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0, "maximum": 999_999_999}
    return {
        "operationId": "stack",
        "summary": "Show where a process is at this moment: needs the setting stack_signal in the worker.",
        "security": [{"operations": []}],
        "parameters": [
            {"name": "node", "in": "path", "required": True, "schema": text},
            {"name": "process", "in": "path", "required": True, "schema": whole},
            {"name": "X-Actor", "in": "header", "required": False, "schema": {"type": "string"}, "description": "Who asks."},
        ],
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": {"type": "object", "properties": fields, "additionalProperties": False}}},
        },
        "responses": {"200": _answer("The stack.", stacks.described()), **_refusals(*_REFUSALS)},
    }


def _question(question: Question) -> Mapping[str, Any]:
    return {
        "operationId": question.name,
        "summary": question.summary,
        "parameters": [_parameter(name) for name in question.parameters],
        "responses": {"200": _answer("The answer.", question.answer), **_refusals("400", "503")},
    }


def _parameter(name: str) -> Mapping[str, Any]:
    number = PARAMETERS[name]
    schema = {
        "type": "integer" if number.whole else "number",
        "minimum": number.least,
        "maximum": number.most,
        "default": int(number.default) if number.whole else number.default,
    }
    return {"name": name, "in": "query", "required": False, "description": number.summary, "schema": schema}


def _deed(deed: Deed) -> Mapping[str, Any]:
    fields = {name: schema for name, schema in BODY.items() if name != "seconds" or deed.takes_seconds}
    properties = {"channel_type": {"type": "string"}, "action": {"const": deed.action}, **deed.answer}
    return {
        "operationId": deed.name,
        "summary": deed.summary,
        "security": [{"operations": []}],
        "parameters": [
            {"name": "channel", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
            {"name": "X-Actor", "in": "header", "required": False, "schema": {"type": "string"}, "description": "Who does it."},
        ],
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": {"type": "object", "properties": fields, "additionalProperties": False}}},
        },
        "responses": {
            "200": _answer("It is done.", {"type": "object", "properties": properties, "required": sorted(properties)}),
            **_refusals(*_OF_DEEDS),
        },
    }


def _answer(text: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _refusals(*codes: str) -> Mapping[str, Any]:
    return {code: _answer(_REFUSALS[code], {"$ref": "#/components/schemas/Error"}) for code in codes}
