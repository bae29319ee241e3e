"""A client of the Ray Jobs API: submits, asks, follows logs; tries again, within bounds."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cifarray.backends.base import JOB_ENDED, PATIENCE_S, PAUSES_S, SubmittedJob
from cifarray.errors import ClusterError
from cifarray.proxies import http_client, is_loopback
from cifarray.timers import Deadline, pauses

if TYPE_CHECKING:
    import httpx2

REQUEST_TIMEOUT_S = 15.0
SUBMIT_TIMEOUT_S = 90.0
"""A fresh node answers a submission only when its agent is up."""
SHOWN_CHARACTERS = 300


class RayJobs:
    """The Jobs API at a dashboard's address. Every failure is a ClusterError of one sentence."""

    def __init__(
        self, dashboard: str, token: str | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        self.dashboard = dashboard.rstrip("/")
        self._token = token
        self._patience_s = patience_s

    def __repr__(self) -> str:
        return f"RayJobs({self.dashboard!r}, token={'***' if self._token else None})"

    @cached_property
    def _client(self) -> "httpx2.Client":
        """It follows no redirect, which would carry the token elsewhere."""
        return http_client(self.dashboard)

    def version(self) -> dict[str, Any]:
        """The server's `ray_version` and `session_name`."""
        found = self._ask("GET", "/api/version")
        return found if isinstance(found, dict) else {}

    def submit(
        self,
        entrypoint: str,
        submission_id: str,
        env: Mapping[str, str],
        metadata: Mapping[str, str],
        resources: Mapping[str, float] | None = None,
    ) -> None:
        """Start a job under an id that this cluster has not seen; `env` must hold no secret.

        `resources` are custom ones that the entrypoint holds; until they are free it is PENDING.
        """
        body: dict[str, Any] = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": {"env_vars": dict(env)},
            "metadata": dict(metadata),
        }
        if resources:
            body["entrypoint_resources"] = dict(resources)
        if self.find(submission_id) is not None:
            raise ClusterError(f"{self.dashboard} has a job {submission_id} already")
        request = _Request("POST", "/api/jobs/", body, SUBMIT_TIMEOUT_S)
        deadline = Deadline(SUBMIT_TIMEOUT_S)
        for pause_s in pauses(PAUSES_S):
            try:
                self._send(request, deadline)
                return
            except _NoAnswerError as error:
                if self.find(submission_id) is not None:
                    return  # the answer was lost, not the job
                if not deadline.allows(pause_s):
                    raise ClusterError(f"{error}; see `cifarray cluster status`") from error
            time.sleep(pause_s)

    def find(self, submission_id: str) -> SubmittedJob | None:
        """The job of this id; None if the cluster does not know it."""
        found = self._ask("GET", f"/api/jobs/{quote(submission_id)}", absent_is_none=True)
        return _job(found) if isinstance(found, dict) else None

    def all_jobs(self) -> list[SubmittedJob]:
        """Submitted jobs, those that have ended too."""
        return [_job(each) for each in self._listed() if each.get("submission_id")]

    def live_jobs(self) -> list[SubmittedJob]:
        """Submitted jobs that have not ended."""
        return [job for job in self.all_jobs() if not job.ended]

    def live_drivers(self) -> list[str]:
        """Ids of programs that joined the cluster by themselves and have not left."""
        others = (each for each in self._listed() if not each.get("submission_id"))
        return [str(each.get("job_id")) for each in others if each.get("status") not in JOB_ENDED]

    def _listed(self) -> list[dict[str, Any]]:
        found = self._ask("GET", "/api/jobs/")
        return found if isinstance(found, list) else []

    def why_pending(self, submission_id: str) -> str:
        """Which job holds the node that this one waits for; empty if none does."""
        running = [job.id for job in self.live_jobs() if job.status == "RUNNING"]
        before = [job_id for job_id in running if job_id != submission_id]
        return f"waiting for {before[0]} to leave the node" if before else ""

    def stop(self, submission_id: str) -> bool:
        """Ask the job to end; False if there is none or it has already ended."""
        path = f"/api/jobs/{quote(submission_id)}/stop"
        found = self._ask("POST", path, absent_is_none=True)
        return bool(found and found.get("stopped"))

    def logs(self, submission_id: str) -> str:
        """What the job has written so far; empty if the cluster does not know it."""
        path = f"/api/jobs/{quote(submission_id)}/logs"
        found = self._ask("GET", path, absent_is_none=True)
        return str(found.get("logs") or "") if isinstance(found, dict) else ""

    def tail(self, submission_id: str, seen: int = 0) -> Iterator[str]:
        """The job's log as it grows, without its first characters, until the job has ended.

        The end of the socket is not the end of the job: the status decides, and the log is taken
        up where it was cut.
        """
        waits = pauses(PAUSES_S)
        while True:
            before = seen
            for text in self._socket(submission_id, seen):
                seen += len(text)
                yield text
            job = self.find(submission_id)
            if job is None or job.ended:
                rest = self.logs(submission_id)[seen:]
                if rest:
                    yield rest
                return
            if seen > before:
                waits = pauses(PAUSES_S)
            time.sleep(next(waits))

    def _socket(self, submission_id: str, skip: int) -> Iterator[str]:
        """Text from one websocket without its first characters; ends when the socket does."""
        import asyncio

        import aiohttp

        url = f"{self.dashboard}/api/jobs/{quote(submission_id)}/logs/tail"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT_S)

        async def connect() -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
            session = aiohttp.ClientSession(
                headers=self._headers(), timeout=timeout, trust_env=not is_loopback(self.dashboard)
            )
            try:
                return session, await session.ws_connect(url, heartbeat=30.0, max_msg_size=0)
            except BaseException:
                await session.close()
                raise

        with asyncio.Runner() as runner:
            try:
                session, socket = runner.run(connect())
            except (aiohttp.ClientError, OSError):
                return
            try:
                while (message := runner.run(socket.receive())).type is aiohttp.WSMsgType.TEXT:
                    text = message.data[skip:]
                    skip -= len(message.data) - len(text)
                    if text:
                        yield text
            except (aiohttp.ClientError, OSError):
                return
            finally:
                runner.run(session.close())

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        absent_is_none: bool = False,
    ) -> Any:
        """One question, asked again while nobody answers or the server is at fault."""
        request = _Request(method, path, body, REQUEST_TIMEOUT_S)
        deadline = Deadline(self._patience_s)
        for pause_s in pauses(PAUSES_S):
            try:
                return self._send(request, deadline)
            except _AbsentError as error:
                if absent_is_none:
                    return None
                raise ClusterError(str(error)) from error
            except _NoAnswerError as error:
                if not deadline.allows(pause_s):
                    raise ClusterError(f"{error}; see `cifarray cluster status`") from error
            time.sleep(pause_s)

    def _send(self, request: "_Request", deadline: Deadline) -> Any:
        """One exchange. Raises: ClusterError, _AbsentError, or _NoAnswerError to be tried again."""
        import httpx2

        try:
            answer = self._client.request(
                request.method,
                self.dashboard + request.path,
                json=request.body,
                headers=self._headers(),
                timeout=max(0.1, min(request.timeout_s, deadline.left_s)),
            )
            if answer.is_success:
                return answer.json()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise _NoAnswerError(
                f"the Ray Jobs API at {self.dashboard} does not answer ({reason})"
            ) from error
        problem = self._refusal(answer.status_code, answer.text)
        if answer.status_code == 404:
            raise _AbsentError(problem)
        raise _NoAnswerError(problem) if answer.is_server_error else ClusterError(problem)

    def _refusal(self, code: int, text: str) -> str:
        """One sentence for an answer that is not a success."""
        if code in (401, 403):
            what = "requires a token" if code == 401 else "refuses the token that was given"
            return (
                f"the Ray Jobs API at {self.dashboard} {what} (HTTP {code}); "
                "give the node's token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            )
        lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
        last = lines[-1][:SHOWN_CHARACTERS] if lines else "no reason given"
        return f"the Ray Jobs API at {self.dashboard} answered HTTP {code}: {last}"


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: dict[str, Any] | None
    timeout_s: float


class _NoAnswerError(Exception):
    """Nobody answered, or the server could not: worth another try."""


class _AbsentError(Exception):
    """The server knows nothing of that name."""


def _job(found: Mapping[str, Any]) -> SubmittedJob:
    return SubmittedJob(
        id=str(found.get("submission_id") or ""),
        status=str(found.get("status") or ""),
        message=str(found.get("message") or ""),
        exit_code=found.get("driver_exit_code"),
    )
