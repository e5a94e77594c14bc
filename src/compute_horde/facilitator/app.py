"""The Litestar application over an open :class:`~compute_horde.facilitator.facilitator.Facilitator`."""

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from compute_horde.facilitator.facilitator import Facilitator
from compute_horde.facilitator.http import Failures, announce_extensions, current_session
from compute_horde.facilitator.http_events import events
from compute_horde.facilitator.http_explanation import explain_job
from compute_horde.facilitator.http_jobs import cancel_job, create_job, get_job, list_jobs
from compute_horde.facilitator.http_login import live, login, nonce, ready
from compute_horde.facilitator.http_logs import job_logs
from compute_horde.facilitator.http_replicas import ask_validator
from compute_horde.facilitator.http_reports import get_feedback, give_feedback, report_cheated_job
from compute_horde.facilitator.openapi import OPENAPI
from compute_horde.facilitator.ws import validators
from compute_horde.telemetry.server import metrics_route

_CLIENT: list[ControllerRouterHandler] = [
    nonce,
    login,
    create_job,
    list_jobs,
    get_job,
    cancel_job,
    job_logs,
    explain_job,
    report_cheated_job,
    get_feedback,
    give_feedback,
    events,
]


def create_app(facilitator: Facilitator) -> Litestar:
    """The routes of section 2, twice: some clients put ``/api/v1`` before every path (section 2.1).

    Strangers reach it: metrics are among them only where they are asked a token.
    """
    token = facilitator.settings.operations_token
    return Litestar(
        route_handlers=[
            *_CLIENT,
            live,
            ready,
            validators,
            ask_validator,
            *([metrics_route(facilitator.metrics, token)] if token else []),
            Router("/api/v1", route_handlers=_CLIENT, include_in_schema=False),
        ],
        dependencies={
            "desk": Provide(lambda: facilitator, sync_to_thread=False),
            "session": Provide(current_session, sync_to_thread=False),
        },
        before_send=[announce_extensions],
        exception_handlers=Failures(facilitator.metrics, facilitator.outages).handlers(),
        request_max_body_size=facilitator.settings.max_body_bytes,
        openapi_config=OPENAPI,
        logging_config=None,
    )
