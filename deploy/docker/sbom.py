"""A CycloneDX 1.6 bill of materials out of a lock file, on standard output: ``sbom.py LOCK``.

The same bytes from the same lock: no time, no random serial number.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, Any]]:
    """A component for each pinned package, with the hashes of the files that the lock allows."""
    found: list[dict[str, Any]] = []
    for line in lock.splitlines():
        if pin := PIN.match(line):
            name, version = pin[1].lower().replace("_", "-"), pin[2]
            purl = f"pkg:pypi/{name}@{version}"
            found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
        elif hashed := HASH.search(line):
            # One package, several files: CycloneDX has them as external references, each with its hash.
            reference = {
                "type": "distribution",
                "url": f"https://pypi.org/project/{found[-1]['name']}/{found[-1]['version']}/",
                "hashes": [{"alg": "SHA-256", "content": hashed[1]}],
            }
            found[-1].setdefault("externalReferences", []).append(reference)
    return sorted(found, key=lambda component: str(component["bom-ref"]))


def bill(name: str, lock: str) -> dict[str, Any]:
    """The whole document."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, lock)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": name, "name": name}},
        "components": components(lock),
    }


if __name__ == "__main__":
    path = Path(sys.argv[1])
    print(json.dumps(bill(f"banditmesh-{path.stem}", path.read_text()), indent=1))
