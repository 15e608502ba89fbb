#!/usr/bin/env bash
# grpcio asks a request iterator for its next message when the last one lies in this machine's buffers. Over an uplink of
# 5 Mbit/s a message of 1 MiB counts as sent at once, 1.7 seconds before it has left, so the time between two calls of the
# iterator says nothing of the uplink.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1
"$folder/environment/bin/python" - <<'PYTHON'
import socket
import threading
import time
from concurrent import futures

import grpc

BYTES, RATE = 1 << 20, 5e6 / 8  # a second


class Answer(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(lambda messages, context: (b"got it" for _ in messages))


def pump(source, target, rate):
    due = time.perf_counter()
    while data := source.recv(4096):
        if rate:
            due = max(due, time.perf_counter()) + len(data) / rate
            time.sleep(max(0.0, due - time.perf_counter()))
        target.sendall(data)


def relay(listener, port):
    while True:
        client, server = listener.accept()[0], socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=pump, args=(client, server, RATE), daemon=True).start()
        threading.Thread(target=pump, args=(server, client, 0), daemon=True).start()


server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Answer(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=relay, args=(listener, port), daemon=True).start()
channel = grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}")
next_s = []


def messages():
    begun = time.perf_counter()
    yield bytes(BYTES)
    next_s.append(time.perf_counter() - begun)


begun = time.perf_counter()
list(channel.stream_stream("/a/b")(messages()))
answered_s = time.perf_counter() - begun
print(f"grpcio {grpc.__version__}: a message of 1 MiB over 5 Mbit/s, which takes {BYTES / RATE:.2f} s")
print(f"expected: the iterator is asked for more after about {BYTES / RATE:.2f} s")
print(f"found: after {next_s[0]:.2f} s; the answer came after {answered_s:.2f} s")
server.stop(None)
raise SystemExit(not (next_s[0] < 0.5 * BYTES / RATE <= answered_s))
PYTHON
