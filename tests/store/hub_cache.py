"""Makes a cache as the real huggingface_hub does: hub_cache.py FILE CACHE downloads FILE as me/story into CACHE.

The hub is a small one of this script's own, on loopback, that answers what hf_hub_download asks.
"""

import hashlib
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
README = b"# A story\n"


def serve(files):
    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, with_body):
            name = self.path.split("?")[0].rsplit("/", 1)[-1]
            if "/resolve/" not in self.path or name not in files:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content, is_large = files[name]
            etag = hashlib.sha256(content).hexdigest()
            if not is_large:
                etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.send_response(200)
            self.send_header("ETag", f'"{etag}"')
            if is_large:
                self.send_header("X-Linked-Etag", f'"{etag}"')
                self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def main():
    path, cache = sys.argv[1:]
    name = os.path.basename(path)
    with open(path, "rb") as file:
        port = serve({name: (file.read(), True), "README.md": (README, False)})
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{port}"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import hf_hub_download

    for each in (name, "README.md"):
        hf_hub_download("me/story", each, cache_dir=cache)


main()
