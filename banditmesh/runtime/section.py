"""What every section of ``mesh.yaml`` is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Closed (an unknown key is an error), frozen, and strict: ``partitions: "4"`` and ``partitions: yes`` are
    mistakes, not numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
