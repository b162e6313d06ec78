"""What the scripts of this folder share: `nfl serve` over a home of its own, a small registry, and a list of checks."""

import hashlib
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request


class Served:
    """`nfl serve` with the file as the model `stories`, and with further words; ends with the block."""

    def __init__(self, program, file, *words):
        self.program, self.file, self.words = program, file, words

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        environment = {**os.environ, "NFL_HOME": self.folder.name, "NFL_BACKENDS": "none"}
        subprocess.run([self.program, "import", self.file, "--name", "stories"], env=environment, check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [self.program, "serve", "--host", "127.0.0.1", "--port", str(port), *self.words]
        self.process = subprocess.Popen(command, env=environment)
        self.url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{self.url}/health")
                return self
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("nfl serve does not answer")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.folder.cleanup()


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of an OCI registry as a pull and a push need."""

    protocol_version = "HTTP/1.1"
    blobs, manifests = {}, {}

    @classmethod
    def start(cls):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), cls)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{server.server_port}"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        kind, name = re.search(r"/(manifests|blobs)/([^?]+)", self.path).groups()
        key = self.path if kind == "manifests" else name
        content = (self.manifests if kind == "manifests" else self.blobs).get(key)
        if content is None:
            return self.answer(404)
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return self.answer(200, content, Accept_Ranges="bytes")
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        part = content[first : last + 1]
        span = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return self.answer(206, part, Content_Range=span)

    do_HEAD = do_GET

    def do_POST(self):
        self.answer(202, Location=self.path.rstrip("/") + "/1?x=y")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "/manifests/" in self.path:
            self.manifests[self.path] = body
        else:
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            assert digest in self.path.replace("%3A", ":"), "the content is not what it is called after"
            self.blobs[digest] = body
        self.answer(201)


class Checks:
    """Runs checks one by one and goes on when one fails."""

    def __init__(self):
        self.failed = []

    def __call__(self, check):
        try:
            check()
            print(f"ok      {check.__name__}")
        except Exception:
            self.failed.append(check.__name__)
            print(f"FAILED  {check.__name__}\n{traceback.format_exc()}")
        return check

    def finish(self):
        print(f"{len(self.failed)} failed: {', '.join(self.failed)}" if self.failed else "all passed")
        sys.exit(1 if self.failed else 0)


def arguments():
    """The program and the model's file."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} NFL STORIES.gguf")
    return [str(pathlib.Path(word).resolve()) for word in sys.argv[1:]]


CHATML = (
    "{% if tools %}<|im_start|>system\n<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n"
    "A call is <tool_call>\n{\"name\": NAME, \"arguments\": OBJECT}\n</tool_call><|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def create_chatty(url, **parameters):
    """Makes the tiny model known as `chatty` too, with a chat template."""
    body = {"model": "chatty", "from": "stories", "template": CHATML, "parameters": parameters, "stream": False}
    request = urllib.request.Request(f"{url}/api/create", json.dumps(body).encode())
    assert json.load(urllib.request.urlopen(request))["status"] == "success"


def parsed(text):
    """The JSON in a text."""
    return json.loads(text)
