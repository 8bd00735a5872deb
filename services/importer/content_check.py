"""What a content from a Data Provider must be."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.lengths import (
    END_S,
    FIRST_S,
    MAX_ATTRIBUTES,
    MAX_BODY_BYTES,
    MAX_CONTENT_BYTES,
    MAX_CONTENT_ID_BYTES,
    MAX_EMBEDDING,
    MAX_NAME_BYTES,
    MAX_TITLE_BYTES,
    MAX_URI_BYTES,
    MAX_VALUE_BYTES,
    MAX_VALUES,
)

CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029]"
"""No id, title or URI has such a character."""
_CONTROL = re.compile(CONTROL)
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_RUN_BY_BROWSERS = ("javascript", "vbscript", "data")
"""An app that hands such a URI to a web view runs whatever its provider's database holds."""


def content_problem(content: provider_pb2.Content, dimensions: int | None = None) -> str:
    """Return why a content is not valid, short and countable; empty: it is. ``dimensions``: of the mesh's vectors."""
    if not content.content_id:
        return "no_id"
    if len(content.content_id.encode()) > MAX_CONTENT_ID_BYTES:
        return "id_too_long"
    if _CONTROL.search(content.content_id):
        return "id_has_control_character"
    if len(content.title.encode()) > MAX_TITLE_BYTES:
        return "title_too_long"
    if _CONTROL.search(content.title):
        return "title_has_control_character"
    if problem := _uri_problem(content.uri):
        return f"uri_{problem}"
    if problem := _uri_problem(content.image_uri, image=True):
        return f"image_uri_{problem}"
    if len(content.attributes) > MAX_ATTRIBUTES:
        return "too_many_attributes"
    if len({attribute.name for attribute in content.attributes}) < len(content.attributes):
        return "attribute_twice"
    if content.HasField("expires_at"):
        at = content.expires_at
        if not (FIRST_S <= at.seconds < END_S and 0 <= at.nanos < 1_000_000_000):
            return "expires_at_out_of_range"
    if len(content.body.encode()) > MAX_BODY_BYTES:
        return "body_too_long"
    if served_bytes(content) > MAX_CONTENT_BYTES:
        return "too_large"
    if content.embedding and (problem := _embedding_problem(content.embedding, dimensions)):
        return problem
    return next((problem for attribute in content.attributes if (problem := _attribute_problem(attribute))), "")


def served_bytes(content: provider_pb2.Content) -> int:
    """The size of a content as engines read and answer it, about; never less."""
    return content.ByteSize() - len(content.body.encode()) - 4 * len(content.embedding)


def _embedding_problem(embedding: Sequence[float], dimensions: int | None) -> str:
    if len(embedding) > MAX_EMBEDDING:
        return "embedding_too_long"
    if dimensions is not None and len(embedding) != dimensions:
        return "embedding_of_other_dimensions"
    if not all(map(math.isfinite, embedding)):
        return "embedding_not_finite"
    return "" if any(embedding) else "embedding_is_zero"


def _uri_problem(uri: str, *, image: bool = False) -> str:
    if len(uri.encode()) > MAX_URI_BYTES:
        return "too_long"
    if _CONTROL.search(uri):
        return "has_control_character"
    scheme = _SCHEME.match(uri)
    if scheme and scheme[1].lower() in _RUN_BY_BROWSERS and not (image and uri.lower().startswith("data:image/")):
        return f"is_{scheme[1].lower()}"
    return ""


def _attribute_problem(attribute: provider_pb2.Attribute) -> str:
    if not 1 <= len(attribute.name.encode()) <= MAX_NAME_BYTES:
        return "bad_attribute_name"
    if attribute.HasField("number"):
        if attribute.values:
            return "values_and_number"
        return "" if math.isfinite(attribute.number) else "number_not_finite"
    if len(attribute.values) > MAX_VALUES:
        return "too_many_values"
    if any(len(value.encode()) > MAX_VALUE_BYTES for value in attribute.values):
        return "value_too_long"
    return ""
