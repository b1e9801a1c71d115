"""Asks an installed wheel what it holds, from outside the checkout: our packages and nothing else, each importable."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from pathlib import Path

PACKAGES = {"collector", "correlator", "audit_api", "dashboards", "alerting", "deploy"}
EXTRAS = {
    "opensearchpy",
    "grafana_client",
    "obstore",
    "grpc",
    "aiokafka",
    "aio_pika",
    "pamqp",
    "pulsar",
    "river",
    "httpx",
    "joserfc",
    "pyarrow",
    "fpdf",
    "segno",
    "fontTools",
    "grafana_foundation_sdk",
    "yaml",
    "cramjam",
    "redis",
}


def main() -> int:
    """Prints what is wrong; returns the exit code."""
    wheel = importlib.metadata.distribution("tallystick")
    files = [Path(str(path)) for path in wheel.files or ()]
    tops = {path.parts[0] for path in files if not path.parts[0].endswith(".dist-info") and path.parts[0] != ".."}
    wrong = [f"the wheel installs {', '.join(sorted(tops))}"] if tops != PACKAGES else []
    wrong += [f"{package}/py.typed is missing" for package in PACKAGES if Path(package, "py.typed") not in files]
    pages = importlib.metadata.files("tallystick") or ()
    held = {Path(str(path)).suffix for path in pages if Path(str(path)).is_relative_to("audit_api/web")}
    wrong += [
        f"the pages' {kind} files are missing" for kind in sorted({".html", ".css", ".js", ".svg", ".toml"} - held)
    ]
    if not any(path.name == "LICENSE" for path in files):
        wrong.append("the licence is missing")

    imported = 0
    for package in sorted(PACKAGES):
        folder = importlib.util.find_spec(package)
        if folder is None or folder.origin is None or "site-packages" not in folder.origin:
            wrong.append(f"{package} comes from {folder and folder.origin}, not from the wheel")
            continue
        for module in pkgutil.walk_packages([str(Path(folder.origin).parent)], f"{package}."):
            if module.name.endswith("__main__"):
                continue
            try:
                importlib.import_module(module.name)
                imported += 1
            except ModuleNotFoundError as error:
                if error.name is None or error.name.split(".")[0] not in EXTRAS:
                    wrong.append(f"{module.name} needs {error.name}, which the wheel does not ask for")
    print("\n".join(wrong) or f"tallystick {wheel.version}: {len(files)} files, {imported} modules imported")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
