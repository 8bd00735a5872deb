"""How long texts may be, and how many of something there may be: one number for each, for whoever writes it and
whoever reads it. What they are applied by: ``banditmesh/runtime/limits.py``. Nothing is imported here.
"""

from __future__ import annotations

from typing import Final

MAX_NAME_BYTES: Final = 64
"""Of the name of a placement, service, logic, variant; of a field of profiles, contexts and contents."""
MAX_MODEL_NAME_BYTES: Final = 128
"""Of a model: the policy's name and a digest of its parameters."""
MAX_USER_ID_BYTES: Final = 128
MAX_CONTENT_ID_BYTES: Final = 256
"""Long enough for a URL. An id is in every token of its content, beside up to 3 KiB of features."""
MAX_CONTEXT_ENTRIES: Final = 32
MAX_CONTEXT_VALUE_BYTES: Final = 256
MAX_BATCH: Final = 512
"""Requests of one ``BatchSelectContents``."""
MAX_COUNT: Final = 50
"""Contents of one ``RecommendContents``: the positions of a list."""
MAX_PROFILE_FIELDS: Final = 64

MAX_TITLE_BYTES: Final = 1024
MAX_URI_BYTES: Final = 2048
"""Of a content; a picture's too."""
MAX_BODY_BYTES: Final = 65536
MAX_ATTRIBUTES: Final = 64
"""Of a content."""
MAX_VALUES: Final = 64
"""Of an attribute."""
MAX_VALUE_BYTES: Final = 256
"""Of a value of an attribute, and of what rules compare it with."""
MAX_CONTENT_BYTES: Final = 16384
"""Of a content as a message, but for body and embedding, which are not served: an engine reads those of a whole list in
one round trip of some milliseconds, and answers with them."""
MAX_EMBEDDING: Final = 512
MAX_CONTENT_IDS: Final = 500
"""Of one ``GetContents``."""

FIRST_S: Final = -62_135_596_800
"""The first second of the year 1, before 1970: what ``google.protobuf.Timestamp`` and Python can hold."""
END_S: Final = 253_402_300_800
"""The end of the year 9999."""
