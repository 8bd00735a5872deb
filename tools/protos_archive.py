"""Packs ``protos/`` for teams that generate clients in other languages: the same bytes from the same protos."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path

from banditmesh import __version__

ROOT = Path(__file__).resolve().parents[1]
NAME = f"banditmesh-protos-{__version__}"


def main(folder: Path) -> Path:
    """Write the archive into a folder; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.tar.gz"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in [ROOT / "buf.yaml", ROOT / "docs" / "clients.md", *sorted((ROOT / "protos").rglob("*.proto"))]:
            name = file.name if file.suffix == ".md" else str(file.relative_to(ROOT))
            entry = tarfile.TarInfo(f"{NAME}/{name}")
            content = file.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    path.write_bytes(gzip.compress(tar.getvalue(), mtime=0))
    return path


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
