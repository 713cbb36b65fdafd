"""A receiver of OTLP by HTTP, which decodes what it gets and answers what it is told to."""

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self, final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

LONG_ENOUGH_S: Final = 30.0
"""No test waits so long unless it fails."""


def value_of(value: Any) -> Any:
    """An attribute's value."""
    return getattr(value, value.WhichOneof("value"))


def attributes_of(thing: Any) -> dict[str, Any]:
    """The attributes of a span, a point or a resource."""
    return {each.key: value_of(each.value) for each in thing.attributes}


@final
class OtlpReceiver:
    """`answers` are given in turn, then 200: a status, "hang" until released, or "partial"."""

    def __init__(self, *answers: int | str, port: int = 0) -> None:
        self.answers = list(answers)
        self.trace_requests: list[Any] = []
        self.metric_requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.retry_after = ""
        """Sent with each answer, if given."""
        self.asked = 0
        self.released = threading.Event()
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def until(self, ready: Callable[["OtlpReceiver"], object]) -> None:
        """Waits until something is so. From another thread than the loop's."""
        with self._changed:
            assert self._changed.wait_for(lambda: ready(self), LONG_ENOUGH_S)

    @property
    def resources(self) -> list[dict[str, Any]]:
        """Who sent it."""
        sent = [*self.trace_requests, *self.metric_requests]
        return [
            attributes_of(each.resource)
            for request in sent
            for each in getattr(request, request.DESCRIPTOR.fields[0].name)
        ]

    @property
    def spans(self) -> list[Any]:
        """All spans that were taken."""
        return [
            span
            for request in self.trace_requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        """The latest of each metric, by name."""
        return {
            metric.name: metric
            for request in self.metric_requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def _take(self, path: str, body: bytes) -> tuple[int, bytes]:
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "hang":
            self._note()
            self.released.wait(LONG_ENOUGH_S)
            return 200, b""
        said = b""
        if answer == "partial":
            answer, response = 200, ExportTraceServiceResponse()
            response.partial_success.rejected_spans = 1
            said = response.SerializeToString()
        if answer == 200:
            known: dict[str, tuple[Any, list[Any]]] = {
                "/v1/traces": (ExportTraceServiceRequest, self.trace_requests),
                "/v1/metrics": (ExportMetricsServiceRequest, self.metric_requests),
            }
            kind, requests = known[path]
            requests.append(kind.FromString(body))
        self._note()
        return int(answer), said

    def _note(self) -> None:
        with self._changed:
            self.asked += 1
            self._changed.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.headers["Content-Type"] == "application/x-protobuf"
                outer.headers.append(dict(self.headers))
                status, said = outer._take(self.path, body)
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/x-protobuf")
                    self.send_header("Content-Length", str(len(said)))
                    if outer.retry_after:
                        self.send_header("Retry-After", outer.retry_after)
                    self.end_headers()
                    self.wfile.write(said)
                except OSError:
                    self.close_connection = True  # nobody waits for the answer any more

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        return Handler
