"""The application that Airflow mounts: its headers, its pages for whatever goes wrong, and the routes."""

import hashlib
import logging
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from components.errors import MfhError
from deploy.airflow_ui.access import Access, NotSignedInError
from deploy.airflow_ui.catalogue import Catalogue
from deploy.airflow_ui.runs import Runs
from simulator.report import numbers

log = logging.getLogger("mfh.airflow_ui")

HERE = Path(__file__).parent
# Own styles and one own script, nothing from elsewhere; only Airflow's UI may frame the pages.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; frame-src 'self'; form-action 'self'; "
    "frame-ancestors 'self'; base-uri 'none'"
)
# A report comes from the lake, which others write: nothing in it runs, loads, submits or leaves its frame. It keeps its
# origin so that the page around it can set its theme.
REPORT_POLICY = (
    "sandbox allow-same-origin; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "form-action 'none'; frame-ancestors 'self'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}


class PageError(Exception):
    """What is answered instead of a page: a status, a title, and sentences that say what to do.

    Args:
        status: HTTP status.
        title: In a few words.
        *sentences: What happened, what to do.
        link: Where to go on, as (address below the pages, text).
        again_s: After how many seconds the page looks again by itself; 0 for never.
    """

    def __init__(
        self, status: int, title: str, *sentences: str, link: tuple[str, str] | None = None, again_s: int = 0
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.sentences = sentences
        self.link = link or ("/", "All reports")
        self.again_s = again_s


NOT_FOUND = PageError(404, "There is no such page", "The address is not one of these pages.")


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    static = sorted((HERE / "static").iterdir())
    # In the address of styles and script, so that a browser does not go on with those of an earlier version.
    environment.globals["version"] = hashlib.sha256(b"".join(file.read_bytes() for file in static)).hexdigest()[:8]
    environment.globals["n"] = numbers
    environment.globals["here"] = ""
    return environment


def base_of(request: Request) -> str:
    """Path under which the pages are mounted, Airflow's own prefix included."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Fill a template.

    Args:
        request: Of the page.
        template: File name.
        status: HTTP status.
        **values: What the template shows; everything is escaped.

    Returns:
        The response.
    """
    text = _templates().get_template(template).render(base=base_of(request), **values)
    return HTMLResponse(text, status)


def message(request: Request, error: PageError) -> HTMLResponse:
    """The page of an error."""
    link = (f"{base_of(request)}{error.link[0]}", error.link[1])
    return page(
        request,
        "message.html",
        error.status,
        title=error.title,
        sentences=error.sentences,
        link=link,
        again_s=error.again_s,
    )


def create_app(access: Access, runs: Runs, catalogue: Catalogue) -> FastAPI:
    """The application.

    Args:
        access: Who may see what.
        runs: Where DAG runs are looked up.
        catalogue: What there is to see.

    Returns:
        An application to be mounted; it answers every request with a page, whatever goes wrong.
    """
    from deploy.airflow_ui.routes import router

    # No docs of an API: these are pages.
    app = FastAPI(title="A/B reports", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.access, app.state.runs, app.state.catalogue = access, runs, catalogue
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")

    @app.middleware("http")
    async def headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            response = await answer(request)
        except Exception:
            # The last resort: the reader gets a sentence, the log gets the trace under the same number.
            number = uuid4().hex[:12]
            log.exception("page=%s error=%s", request.url.path, number)
            sentences = (f"The server's log has the details under {number}; tell whoever runs this Airflow.",)
            response = message(request, PageError(500, "The page could not be made", *sentences))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(PageError)
    def _page_error(request: Request, error: PageError) -> Response:
        return message(request, error)

    @app.exception_handler(NotSignedInError)
    def _not_signed_in(request: Request, error: NotSignedInError) -> Response:
        sentences = ("The reports are for people who are signed in to this Airflow.",)
        # The address of the login is the auth manager's, not one below the pages.
        link = (error.login, "Sign in")
        title = "Sign in to see the reports"
        return page(request, "message.html", 401, title=title, sentences=sentences, link=link, again_s=0)

    @app.exception_handler(MfhError)
    def _mfh_error(request: Request, error: MfhError) -> Response:
        return message(request, PageError(422, "This can not be shown", str(error)))

    @app.exception_handler(RequestValidationError)
    def _bad_address(request: Request, error: RequestValidationError) -> Response:
        del error
        return message(request, NOT_FOUND)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return message(request, PageError(405, "These pages are only read", "They take no other request than GET."))
        return message(request, NOT_FOUND)

    return app
