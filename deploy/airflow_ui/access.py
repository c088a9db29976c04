"""Who is asking, and which DAGs they may read: Airflow's own login and permissions decide, whatever manages them."""

from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from starlette.requests import Request


class NotSignedInError(Exception):
    """The request carries no valid session of Airflow. ``login`` is where to get one."""

    def __init__(self, login: str) -> None:
        super().__init__("not signed in")
        self.login = login


class Access(Protocol):
    """What the pages ask of Airflow about a request."""

    async def user(self, request: Request) -> Any:
        """The user of a request; raises ``NotSignedInError`` when there is none."""

    def readable(self, user: Any, dag_ids: AbstractSet[str]) -> set[str]:
        """Which of the DAGs the user may read."""


class AirflowAccess:
    """The auth manager of the API server that the pages are mounted in.

    Airflow puts no check before a mounted application, so every page asks here.
    """

    async def user(self, request: Request) -> Any:
        """The user whom Airflow's session cookie or token names.

        Args:
            request: With the cookie, or an ``Authorization: Bearer`` header, which wins.

        Returns:
            The auth manager's user.

        Raises:
            NotSignedInError: Without a session, or with one that is expired or forged.
        """
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
        from fastapi import HTTPException

        try:
            return await get_user(request, None, await bearer_scheme(request))
        except HTTPException as error:
            query = f"?{request.url.query}" if request.url.query else ""
            login = get_auth_manager().get_url_login(next_url=f"{request.url.path}{query}")
            raise NotSignedInError(str(login)) from error

    def readable(self, user: Any, dag_ids: AbstractSet[str]) -> set[str]:
        """Which of the DAGs the user may read.

        Args:
            user: As ``user`` gave it.
            dag_ids: DAGs of ours.

        Returns:
            Those that exist in Airflow and that the user may read.
        """
        from airflow.api_fastapi.app import get_auth_manager

        return set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET")) & dag_ids
