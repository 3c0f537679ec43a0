"""A gRPC server without a health service: `/test/Echo` answers with the request, `/test/Quiet` never sends a message.

Usage: grpc_app.py PORT [health]. With `health` it has one, which says NOT_SERVING of the service `down`.
"""

import sys
import threading
from concurrent import futures

import grpc

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def quiet(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    context.send_initial_metadata(())
    ended.wait()
    yield from ()


def check(request, context):
    return NOT_SERVING if b"down" in request else SERVING


server = grpc.server(futures.ThreadPoolExecutor(16))
methods = {
    "Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
    "Quiet": grpc.unary_stream_rpc_method_handler(quiet),
}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", methods)])
if "health" in sys.argv:
    health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", health)])
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
