"""What a content from a Data Provider must be."""

from __future__ import annotations

import math

from banditmesh.contracts.provider.v1 import provider_pb2

MAX_ID_BYTES = 128
MAX_TITLE_BYTES = 1024
MAX_URI_BYTES = 2048
MAX_ATTRIBUTES = 64
MAX_NAME_BYTES = 64
MAX_VALUES = 64
MAX_VALUE_BYTES = 256


def content_problem(content: provider_pb2.Content) -> str:
    """Return why a content is not valid, short and countable; empty: it is."""
    if not content.content_id:
        return "no_id"
    if len(content.content_id.encode()) > MAX_ID_BYTES:
        return "id_too_long"
    if len(content.title.encode()) > MAX_TITLE_BYTES:
        return "title_too_long"
    if len(content.uri.encode()) > MAX_URI_BYTES:
        return "uri_too_long"
    if len(content.attributes) > MAX_ATTRIBUTES:
        return "too_many_attributes"
    if len({attribute.name for attribute in content.attributes}) < len(content.attributes):
        return "attribute_twice"
    if content.HasField("expires_at"):
        at = content.expires_at
        # From year 1 to 9999, as the Timestamp type says.
        if not (-62_135_596_800 <= at.seconds < 253_402_300_800 and 0 <= at.nanos < 1_000_000_000):
            return "expires_at_out_of_range"
    return next((problem for attribute in content.attributes if (problem := _attribute_problem(attribute))), "")


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
