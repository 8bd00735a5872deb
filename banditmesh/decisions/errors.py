"""The one error of the decision log."""

from __future__ import annotations

from banditmesh.runtime.errors import InvalidArgument


class BrokenRow(InvalidArgument):
    """A row that does not follow the format. The message starts with its file and line (row, for Parquet)."""

    def __init__(
        self, where: str, message: str, *, field: str | None = None, value: object = None, hint: str | None = None
    ) -> None:
        super().__init__(f"{where}: {message}", field=field, value=value, hint=hint)
