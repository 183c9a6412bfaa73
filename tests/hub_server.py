"""A small server that speaks as much of the Hugging Face hub's API as pushing and pulling a folder needs."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub(BaseHTTPRequestHandler):
    """`repositories` has the files of each ("datasets/me/results" -> path -> bytes); who has the `token` may write."""

    repositories: dict[str, dict[str, bytes]]
    made: list[dict]
    token = "may write"

    def do_GET(self):
        path = urlsplit(self.path).path.strip("/")
        called = path.removeprefix("api/") if path.startswith(("api/", "datasets/")) else f"models/{path}"
        kind, owner, name, what, _, *rest = [*called.split("/"), "", "", "", ""]
        repository = self.repositories.get(f"{kind}/{owner}/{name}")
        if repository is None:
            return self.refuse(404, "RepoNotFound")
        if "/revision/v9" in self.path:
            return self.refuse(404, "RevisionNotFound")
        if not path.startswith("api/"):
            return self.send_file(repository, unquote("/".join(filter(None, rest))), what)
        if what == "tree":
            return self.say([entry(file, data) for file, data in sorted(repository.items())])
        siblings = [{"rfilename": file} for file in sorted(repository)]
        return self.say({"id": f"{owner}/{name}", "sha": commit(repository), "siblings": siblings})

    do_HEAD = do_GET

    def do_POST(self):
        path, data = urlsplit(self.path).path.strip("/"), self.rfile.read(int(self.headers["Content-Length"] or 0))
        if path == "api/validate-yaml":
            return self.say({"errors": [], "warnings": []})
        if self.headers["Authorization"] != f"Bearer {self.token}":
            return self.refuse(403, "Forbidden")
        if path == "api/repos/create":
            return self.create(json.loads(data))
        kind, owner, name, what, *_ = path.removeprefix("api/").split("/")
        repository = self.repositories[f"{kind}/{owner}/{name}"]
        if what == "preupload":
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self.say({"files": [{"path": file["path"], **modes} for file in json.loads(data)["files"]]})
        assert what == "commit"
        for line in map(json.loads, data.splitlines()):
            change(repository, line["key"], line["value"])
        address = self.address_of(f"{kind}/{owner}/{name}") + f"/commit/{commit(repository)}"
        return self.say({"commitUrl": address, "commitOid": commit(repository)})

    def create(self, wanted):
        name = f"{wanted.get('type', 'model')}s/{wanted['organization']}/{wanted['name']}"
        if name in self.repositories:
            return self.send(409, json.dumps({"url": self.address_of(name)}).encode())
        self.made.append(wanted)
        self.repositories[name] = {".gitattributes": b""}
        return self.say({"url": self.address_of(name)})

    def address_of(self, name):
        return f"http://{self.headers['Host']}/{name.removeprefix('models/')}"

    def send_file(self, repository, file, what):
        if what != "resolve" or file not in repository:
            return self.refuse(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit(repository), "ETag": f'"{entry(file, repository[file])["oid"]}"'}
        return self.send(200, repository[file], headers)

    def say(self, value):
        self.send(200, json.dumps(value).encode())

    def refuse(self, status, code):
        self.send(status, b"{}", {"X-Error-Code": code})

    def send(self, status, body, headers=None):
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def change(repository, key, value):
    if key == "file":
        repository[value["path"]] = base64.b64decode(value["content"])
    elif key == "deletedFile":
        del repository[value["path"]]


def entry(file, data):
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return {"type": "file", "path": file, "size": len(data), "oid": oid}


def commit(repository):
    return hashlib.sha1(repr(sorted(repository.items())).encode()).hexdigest()


@contextlib.contextmanager
def served():
    """The handler's class, with its address."""
    handler = type("TheHub", (Hub,), {"repositories": {}, "made": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()
