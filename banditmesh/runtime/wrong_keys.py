"""What a validator of a configuration raises."""

from __future__ import annotations

from collections.abc import Mapping


class WrongKeys(ValueError):
    """Raised by a validator that looks at several keys at once: what is wrong, by the path of the key below the
    validated section."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in problems.items()))
        self.problems = problems
