"""Why rows are rejected, in words with what would be right."""

from __future__ import annotations

from collections.abc import Mapping

from banditmesh.lengths import MAX_CONTENT_ID_BYTES, MAX_PROFILE_FIELDS, MAX_USER_ID_BYTES

_ROUNDED_ID = (
    "a number that Excel or a cast to double has rounded, such as 1.23457E+11, so its digits are lost; format the "
    "column as text (or cast it to a whole number) before it is exported"
)
WORDS: Mapping[str, str] = {
    "broken_json": "the line is not JSON; write one object a line",
    "not_an_object": "the line is JSON and no object",
    "key_twice": "the key stands twice in the object; write each once",
    "broken_line": "the quotes of the line do not follow RFC 4180",
    "open_quote": "a quote is opened and not closed",
    "stray_carriage_return": "a carriage return stands in the middle of the line",
    "line_too_long": "the line is longer than 1 MiB",
    "not_utf8": "the text is not in the file's encoding, UTF-8 unless csv.encoding says another",
    "wrong_number_of_columns": "the row has more or fewer columns than the header",
    "wrong_column": "the row has a column that the file must not have",
    "user_id_missing": "the user id is missing",
    "user_id_not_text": "the user id is neither a text nor a whole number",
    "user_id_rounded": f"the user id is {_ROUNDED_ID}",
    "user_id_not_utf8": "the user id is no UTF-8",
    "user_id_too_long": f"the user id has more than {MAX_USER_ID_BYTES} bytes",
    "contents_missing": "the contents are missing",
    "contents_not_a_list": "the contents are not a list",
    "contents_in_brackets": "the contents are a list as Python, JSON or PostgreSQL write it into a text; write the ids "
    "alone, separated by csv.list_separator, a bar by default",
    "too_many_candidates": "the row has more contents than importing.max_candidates",
    "content_id_missing": "a content id is missing",
    "content_id_not_text": "a content id is neither a text nor a whole number",
    "content_id_rounded": f"a content id is {_ROUNDED_ID}",
    "content_is_an_object": 'a content is an object; write the ids alone: {"contents": ["c1", "c2"], "scores": [0.9, '
    "0.5]}",
    "content_id_not_utf8": "a content id is no UTF-8",
    "content_id_has_control_character": "a content id has a control character, which no Data Provider's may have",
    "content_id_too_long": f"a content id has more than {MAX_CONTENT_ID_BYTES} bytes",
    "scores_not_a_list": "the scores are not a list",
    "scores_mismatch": "the row has more or fewer scores than contents",
    "score_not_a_number": "a score is not a number such as 0.9, with a decimal point; in a CSV csv.list_separator "
    "separates them, a bar by default",
    "score_not_finite": "a score is null, NaN or infinite",
    "score_out_of_range": "a score is beyond 65504, the greatest 16-bit float",
    "not_a_number": "the field is a number by mesh.yaml, and the value is none such as 1234.5",
    "number_not_finite": "a number is NaN or infinite; where there is none, write null, in a CSV nothing",
    "time_out_of_range": "a time lies outside the years 1 to 9999",
    "field_name_not_1_to_64_bytes": "the name of a field is empty or has more than 64 bytes",
    "not_a_list": "the value is not a list",
    "list_item_not_text": "an item of the list is no text",
    "list_where_one_value_is_expected": "the value is a list where one value is expected",
    "unsupported_value": "the value is neither a text, a number nor a list of texts",
    "too_many_fields": f"the profile has more than {MAX_PROFILE_FIELDS} fields",
    "profile_too_large": "the profile has more than 4096 bytes",
}


def in_words(reason: str) -> str:
    """Return a reason with its words."""
    return f"{reason} ({WORDS[reason]})" if reason in WORDS else reason
