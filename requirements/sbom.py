"""Writes what is installed in an environment as a bill of materials in the form of CycloneDX 1.6 (JSON).

`python requirements/sbom.py NAME SITE_PACKAGES FILE`: NAME is the package that the rest was installed for. The images'
builds run it; what it imports is in no image. The same packages give the same bytes: the serial number is made of names
and versions, the time is SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name


def _first(found: Distribution, field: str) -> str:
    return str((found.metadata.get_all(field) or [""])[0])


def _licenses(found: Distribution) -> list[License]:
    expression = _first(found, "License-Expression")
    if expression:
        return [LicenseFactory().make_from_string(expression)]
    classifiers = [text for text in found.metadata.get_all("Classifier") or [] if text.startswith("License ::")]
    names = [text.rpartition(" :: ")[2] for text in classifiers]
    # Some packages put the whole text there.
    names = names or _first(found, "License").splitlines()[:1]
    return [DisjunctiveLicense(name=name) for name in names if name.strip()]


def _component(found: Distribution, kind: ComponentType) -> Component:
    purl = PackageURL("pypi", name=canonicalize_name(found.name), version=found.version)
    return Component(
        name=found.name,
        version=found.version,
        type=kind,
        purl=purl,
        bom_ref=purl.to_string(),
        description=_first(found, "Summary") or None,
        licenses=_licenses(found),
    )


def _needed(found: Distribution) -> set[NormalizedName]:
    """Names of what it needs here, with any of its extras: which of them were asked for is recorded nowhere."""
    extras = ("", *(found.metadata.get_all("Provides-Extra") or []))
    asked = map(Requirement, found.requires or [])
    return {
        canonicalize_name(one.name)
        for one in asked
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
    }


def bill(name: str, site_packages: Path) -> str:
    """The bill of materials. Raises SystemExit where the package of this name is not installed there."""
    found = {canonicalize_name(one.name): one for one in distributions(path=[str(site_packages)])}
    application = canonicalize_name(name)
    if application not in found:
        raise SystemExit(f"error: {name} is not installed in {site_packages}")
    parts = {
        key: _component(one, ComponentType.APPLICATION if key == application else ComponentType.LIBRARY)
        for key, one in found.items()
    }
    whole = parts[application]
    listing = "\n".join(sorted(str(part.bom_ref) for part in parts.values()))
    bom = Bom(
        components=[part for part in parts.values() if part is not whole],
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, listing),
    )
    bom.metadata.component = whole
    bom.metadata.timestamp = datetime.fromtimestamp(float(os.environ.get("SOURCE_DATE_EPOCH", time.time())), UTC)
    for key, part in parts.items():
        bom.register_dependency(part, [parts[need] for need in _needed(found[key]) - {key} if need in parts])
    return JsonV1Dot6(bom).output_as_string(indent=2)


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(bill(sys.argv[1], Path(sys.argv[2])), encoding="utf-8")
