"""What Airflow loads: where the pages hang in its UI, and the application that serves them."""

from threading import Lock, Timer
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/mfh"
# Relative, so that they hold below whatever path Airflow's own base URL has.
HREF = PREFIX.removeprefix("/")
WARM_AFTER_S = 10.0
LIST_ROUTE, RUN_ROUTE, DAG_ROUTE = "ab-reports", "ab-report", "ab-reports-of-dag"


class Pages:
    """The application, made at its first request: every process of Airflow imports its plugins, tasks too."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._lock = Lock()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request.

        Args:
            scope: Of ASGI.
            receive: Of ASGI.
            send: Of ASGI.
        """
        from anyio.to_thread import run_sync

        app = self._app
        if app is None:
            # In a thread, because the imports take seconds in which the server shall answer others.
            app = await run_sync(self.made)
        await app(scope, receive, send)

    def made(self) -> "ASGIApp":
        """The application; the first call imports what it needs."""
        with self._lock:
            if self._app is None:
                from deploy.airflow_ui.access import AirflowAccess
                from deploy.airflow_ui.app import create_app
                from deploy.airflow_ui.catalogue import Catalogue
                from deploy.airflow_ui.runs import AirflowRuns

                self._app = create_app(AirflowAccess(), AirflowRuns(), Catalogue())
            return self._app


PAGES = Pages()


class Warmth:
    """Makes the pages a little after the API server has started, so that the first reader does not wait for imports.

    A middleware, because that is what Airflow makes of a plugin in its API server and nowhere else; it lets every
    request through as it is.

    Args:
        app: What the requests go to.
        delay_s: How long the server has its processor to itself first.
    """

    def __init__(self, app: "ASGIApp", delay_s: float = WARM_AFTER_S) -> None:
        self._app = app
        timer = Timer(delay_s, PAGES.made)
        timer.daemon = True
        timer.start()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass one request on."""
        await self._app(scope, receive, send)


class ReportsPlugin(AirflowPlugin):
    """The pages of the reports in Airflow's UI."""

    name = "mfh_reports"
    fastapi_apps: ClassVar[list[Any]] = [{"app": PAGES, "url_prefix": PREFIX, "name": "A/B reports"}]
    fastapi_root_middlewares: ClassVar[list[Any]] = [{"middleware": Warmth, "name": "A/B reports, made ready"}]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "A/B reports",
            "href": f"{HREF}/",
            "destination": "nav",
            "url_route": LIST_ROUTE,
            "nav_top_level": True,
            "icon": f"{HREF}/static/icon.svg",
            "icon_dark_mode": f"{HREF}/static/icon-dark.svg",
        },
        {
            "name": "A/B report",
            "href": f"{HREF}/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": RUN_ROUTE,
            "icon": f"{HREF}/static/icon.svg",
            "icon_dark_mode": f"{HREF}/static/icon-dark.svg",
        },
        {
            "name": "A/B reports",
            "href": f"{HREF}/?dag={{DAG_ID}}",
            "destination": "dag",
            "url_route": DAG_ROUTE,
            "icon": f"{HREF}/static/icon.svg",
            "icon_dark_mode": f"{HREF}/static/icon-dark.svg",
        },
    ]
