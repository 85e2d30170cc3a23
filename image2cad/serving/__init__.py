"""The service, its HTTP API and its page."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.serving.api.routes import make_api
    from image2cad.serving.backends import Backend, local_backend, remote_backend
    from image2cad.serving.limits import Limits, open_picture
    from image2cad.serving.page.layout import PAGE_LOOK, make_page
    from image2cad.serving.service import Service

__all__ = [
    "Backend", "Limits", "PAGE_LOOK", "Service", "local_backend", "make_api", "make_page",
    "open_picture", "remote_backend",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
