"""Thousands of requests, many of whose clients leave, against `nfl serve`: nothing may be left behind, and who only looks waits
for nobody.

An opt-in job of some minutes: python3 tests/clients/siege.py target/release/nfl
../shared/material/derived/stories260K-llama-F32.gguf [REQUESTS]

Before and after are counted, in the server and in its workers: open files, threads, memory. Meanwhile `/` and `/metrics` are
asked ten times a second.
"""

import http.client
import json
import os
import pathlib
import random
import statistics
import sys
import threading
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from serving import Served  # noqa: E402

CLIENTS = 32
TALK = {"model": "stories", "prompt": "Once upon a time", "max_tokens": 24}


def connection(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=60)


def post(port, path, body):
    link = connection(port)
    link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return link, link.getresponse()


def whole(port, path, body):
    link, reply = post(port, path, body)
    reply.read()
    link.close()
    return reply.status


def left(port, path, body, lines):
    """Reads some lines of a stream and goes."""
    link, reply = post(port, path, body)
    for _ in range(lines):
        reply.readline()
    reply.close()
    link.close()
    return reply.status


def hung_up(port, path, body):
    """Goes before there is an answer."""
    link = connection(port)
    link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    time.sleep(random.random() / 50)
    link.close()
    return 200


def one(port, kind):
    native = {"model": "stories", "prompt": "Once upon a time", "n_predict": 24}
    ollama = {"model": "stories", "prompt": "Once upon a time", "options": {"num_predict": 24}}
    return [
        lambda: whole(port, "/v1/completions", TALK),
        lambda: whole(port, "/v1/completions", {**TALK, "stream": True}),
        lambda: whole(port, "/api/generate", ollama),
        lambda: whole(port, "/completion", {**native, "stream": True}),
        lambda: whole(port, "/v1/embeddings", {"model": "stories", "input": ["One day"]}),
        lambda: left(port, "/v1/completions", {**TALK, "stream": True, "max_tokens": 400}, 3),
        lambda: left(port, "/api/generate", {**ollama, "options": {}}, 5),
        lambda: hung_up(port, "/completion", {**native, "n_predict": 400}),
        lambda: hung_up(port, "/v1/completions", {**TALK, "stream": True, "max_tokens": 400}),
        lambda: whole(port, "/v1/completions", {**TALK, "max_tokens": -7}),
    ][kind]()


def family(process):
    """The process and its descendants."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = pathlib.Path(f"/proc/{name}/stat").read_text()
            parents[int(name)] = int(text[text.rindex(")") + 2 :].split()[1])
        except OSError:
            pass
    found = [process]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def counted(process):
    """Processes, open files, threads, and memory in MiB, of all of them together."""
    members = family(process)
    files = sum(len(os.listdir(f"/proc/{member}/fd")) for member in members)
    threads = sum(len(os.listdir(f"/proc/{member}/task")) for member in members)
    memory = 0
    for member in members:
        text = pathlib.Path(f"/proc/{member}/status").read_text()
        memory += int(text.split("RssAnon:")[1].split()[0])
    return {"processes": len(members), "files": files, "threads": threads, "MiB": round(memory / 1024, 1)}


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(f"usage: {sys.argv[0]} NFL STORIES.gguf [REQUESTS]")
    program, file = [str(pathlib.Path(word).resolve()) for word in sys.argv[1:3]]
    requests = int(sys.argv[3]) if len(sys.argv) == 4 else 10_000
    random.seed(1)
    with Served(program, file, "--log-level", "error") as served:
        port = int(served.url.rsplit(":", 1)[1])
        statuses, looks, over = {}, {"/": [], "/metrics": []}, threading.Event()
        lock, kinds = threading.Lock(), iter([random.randrange(10) for _ in range(requests)])

        def client():
            while True:
                with lock:
                    kind = next(kinds, None)
                if kind is None:
                    return
                status = one(port, kind)
                with lock:
                    statuses[status] = statuses.get(status, 0) + 1

        def look():
            while not over.wait(0.1):
                for path, times in looks.items():
                    started = time.monotonic()
                    link = connection(port)
                    link.request("GET", path)
                    reply = link.getresponse()
                    reply.read()
                    link.close()
                    assert reply.status == 200, f"{path}: {reply.status}"
                    times.append((time.monotonic() - started) * 1000)

        def crowd():
            clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
            [each.start() for each in clients]
            [each.join() for each in clients]

        # A first part warms everything up: buffers, threads of pools, the allocator.
        everything, kinds = list(kinds), iter([])
        kinds = iter(everything[: requests // 5])
        crowd()
        time.sleep(12)
        before = counted(served.process.pid)
        kinds = iter(everything[requests // 5 :])
        looker = threading.Thread(target=look)
        looker.start()
        started = time.monotonic()
        crowd()
        took = time.monotonic() - started
        over.set()
        looker.join()
        # Threads that wait for work go after ten seconds.
        time.sleep(12)
        after = counted(served.process.pid)
        metrics = connection(port)
        metrics.request("GET", "/metrics")
        text = metrics.getresponse().read().decode()
        busy = [line for line in text.splitlines() if line.startswith("llamacpp:requests_")]
    print(f"{requests} requests, the last four fifths in {took:.1f} s; statuses {dict(sorted(statuses.items()))}")
    print(f"before {before}\nafter  {after}\n{busy}")
    for path, times in looks.items():
        times.sort()
        print(
            f"{path}: {len(times)} looks, median {statistics.median(times):.1f} ms, "
            f"99 of 100 within {times[int(len(times) * 0.99)]:.1f} ms, longest {times[-1]:.1f} ms"
        )
    assert set(statuses) <= {200, 400}, "only what is wrong is refused"
    assert busy and all(line.endswith(" 0") for line in busy), "nothing is busy"
    assert after["processes"] == before["processes"] and after["files"] <= before["files"] + 2
    assert after["threads"] <= before["threads"] + 2 and after["MiB"] <= before["MiB"] * 1.1 + 4
    print("nothing is left behind")


main()
