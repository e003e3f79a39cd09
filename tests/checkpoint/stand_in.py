"""A Hub in miniature: just what a push asks for, on a local port."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Repositories by name: whether private, and files by path. `fail` names the one step that answers 403."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict] = {}
        self.blobs: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.commits = 0
        self.fail = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args) -> None:
        pass

    def _answer(self, status: int, content=None) -> None:
        data = json.dumps(content or {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _step(self, name: str) -> bool:
        """Whether this step was told to fail; records who asks."""
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.fail == name:
            self._answer(403, {"error": f"no {name}"})
        return self.server.fail == name

    def do_GET(self) -> None:
        repo = self.path.removeprefix("/api/models/").split("?")[0].removesuffix("/revision/main")
        if self._step("info"):
            return
        if repo not in self.server.repos:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        held = self.server.repos[repo]
        siblings = [{"rfilename": name} for name in held["files"]]
        self._answer(200, {"id": repo, "private": held["private"], "sha": COMMIT, "siblings": siblings})

    def do_PUT(self) -> None:
        data = self._body()
        if self._step("upload"):
            return
        self.server.blobs[self.path.rpartition("/")[2]] = data
        self._answer(200)

    def do_POST(self) -> None:
        body, path = self._body(), self.path.split("?")[0]
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self._preupload(json.loads(body))
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif "/commit/" in path:
            self._commit(path.removeprefix("/api/models/").split("/commit/")[0], body)
        else:
            self._answer(404)

    def _create(self, asked) -> None:
        if self._step("create"):
            return
        private = asked.get("visibility") == "private" or asked.get("private") is True
        name = f"{asked['organization']}/{asked['name']}"
        self.server.repos[name] = {"private": private, "files": {}}
        self._answer(200, {"url": f"{self.server.url}/{name}", "name": name})

    def _preupload(self, asked) -> None:
        if self._step("preupload"):
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        self._answer(200, {"files": files})

    def _batch(self, asked) -> None:
        if self._step("batch"):
            return
        objects = [
            {**entry, "actions": {"upload": {"href": f"{self.server.url}/lfs/{entry['oid']}"}}}
            for entry in asked["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, body: bytes) -> None:
        if self._step("commit"):
            return
        files = dict(self.server.repos[repo]["files"])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self.server.blobs[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                files[value["path"]] = data
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.server.repos[repo]["files"] = files
        self.server.commits += 1
        self._answer(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})


@contextmanager
def running_hub():
    """The stand-in while the block runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
