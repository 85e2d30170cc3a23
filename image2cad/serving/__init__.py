"""The service, its HTTP API and its page."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.serving.api.routes import make_api
    from image2cad.serving.backends import Backend, local_backend, remote_backend
    from image2cad.serving.connections import patient
    from image2cad.serving.keys import Keys
    from image2cad.serving.limits import Limits, limits_from, open_picture
    from image2cad.serving.observability import json_log
    from image2cad.serving.page.layout import PAGE_LOOK, make_page
    from image2cad.serving.page.receiving import mount_page
    from image2cad.serving.service import Service

__all__ = [
    "Backend", "Keys", "Limits", "PAGE_LOOK", "Service", "json_log", "limits_from", "local_backend",
    "make_api", "make_page", "mount_page", "open_picture", "patient", "remote_backend",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
