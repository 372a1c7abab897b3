"""A W&B server that fits on a page: enough of its HTTP interface for ``wandb.init``, ``log``, ``finish`` and resuming.

It keeps what it is sent in memory, so a test can ask it for a run's rows and summary as the website would show them.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40


class WandbServer:
    """A context manager that listens on a free port of this machine.

    Attributes:
        requests: (method, path or GraphQL operation) of everything asked for, in order.
        runs: run id -> {"config", "summary", "rows", "exitcode"}.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: pytest's output is for failures."""

            def do_GET(self) -> None:
                self._answer({})

            def do_PUT(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(server._post(self.path, self._body()))

            def _body(self) -> bytes:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

            def _answer(self, reply: dict[str, Any]) -> None:
                if self.command != "POST":
                    self._body()
                    server.requests.append((self.command, self.path))
                text = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        class Http(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing of connections that the client resets when it ends."""

        self._http = Http(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening: from now on connections are refused."""
        self._http.shutdown()
        self._http.server_close()

    def rows(self, run_id: str) -> list[dict[str, Any]]:
        """Logged rows of a run, without W&B's own columns."""
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in self.runs[run_id]["rows"]]

    def _post(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/graphql":
            question = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", question["query"])
            name = operation[1] if operation else "?"
            self.requests.append(("GraphQL", name))
            return self._graphql(name, question.get("variables") or {})
        self.requests.append(("POST", path))
        if path.endswith("/file_stream"):
            self._store(path.split("/")[-2], json.loads(body))
        return {}

    def _store(self, run_id: str, chunk: dict[str, Any]) -> None:
        run = self.runs[run_id]
        for name, part in (chunk.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]]
            if name == "wandb-history.jsonl":
                run["rows"][part["offset"] : part["offset"] + len(lines)] = lines
            elif name == "wandb-summary.json":
                run["summary"] = lines[-1]
        if chunk.get("complete"):
            run["exitcode"] = chunk.get("exitcode")

    def _graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("project") or variables.get("modelName")
        project = {"id": "project", "name": name, "entity": {"id": "entity", "name": "me"}}
        if operation == "UpsertBucket":
            name = variables.get("name") or variables["id"]
            new = name not in self.runs
            run = self.runs.setdefault(name, {"config": {}, "summary": {}, "rows": [], "exitcode": None})
            run["config"] = json.loads(variables.get("config") or "{}") or run["config"]
            bucket = {"id": "bucket", "name": name, "displayName": variables.get("displayName"), "project": project}
            bucket |= {"config": json.dumps(run["config"]), "historyLineCount": len(run["rows"])}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": new}}}
        if operation == "RunResumeStatus":
            run = self.runs.get(variables["name"])
            return {
                "data": {"model": project | {"bucket": self._resume_status(variables["name"], run) if run else None}}
            }
        if operation == "Viewer":
            return {"data": {"viewer": {"id": "user", "entity": "me", "username": "me", "flags": "{}"}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in variables["files"]]
            return {"data": {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}}
        return {"data": None, "errors": [{"message": f"unknown operation {operation}"}]}

    @staticmethod
    def _resume_status(name: str, run: dict[str, Any]) -> dict[str, Any]:
        tail = [json.dumps(row) for row in run["rows"][-1:]]
        counts = {"historyLineCount": len(run["rows"]), "eventsLineCount": 0, "logLineCount": 0}
        return counts | {
            "id": "bucket",
            "name": name,
            "displayName": name,
            "summaryMetrics": json.dumps(run["summary"]),
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "config": json.dumps(run["config"]),
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }
