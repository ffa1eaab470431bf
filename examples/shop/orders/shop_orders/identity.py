"""Who did a thing: the service, the host (in a cluster: the pod) and what it runs on."""

import platform
import re
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    service: str
    host: str
    runtime: str

    def header(self) -> str:
        return f"{self.service}/{self.host}; {self.runtime}"


def own(service: str) -> Identity:
    return Identity(service, socket.gethostname(), f"Python {platform.python_version()}")


def of(answer, service: str) -> Identity:
    """Who gave an HTTP answer, from its X-Served-By header: `catalogue/catalogue-5d9f; Java 17.0.15`."""
    match = re.fullmatch(r"([^/;]{1,60})/([^;]{1,253});\s*(.{0,120})", answer.headers.get("X-Served-By", ""))
    return Identity(*match.groups()) if match else Identity(service, "unknown", "unknown")
