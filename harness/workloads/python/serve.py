"""Serves /srv/www by HTTP on a Unix socket, and returns once it has answered a request of its own."""

import http.client
import os
import socket
import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
from socketserver import UnixStreamServer
from typing import Any

BELL = 3
SOCKET = "/run/http.sock"


class Handler(SimpleHTTPRequestHandler):
    def __init__(self, *connection: Any) -> None:
        super().__init__(*connection, directory="/srv/www")

    def address_string(self) -> str:
        return "local"


class Server(UnixStreamServer, HTTPServer):
    """HTTP as http.server has it, on a socket that no other server of the machine can be in the way of."""

    def server_bind(self) -> None:
        UnixStreamServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


class Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


os.write(BELL, b"MARK interpreter\n")
server = Server(SOCKET, Handler)
if os.fork() == 0:
    server.serve_forever()
server.socket.close()  # so that a server that died is a connection refused, not a wait
connection = Connection("localhost")
connection.request("GET", "/")
answer = connection.getresponse()
if answer.status != 200 or b"It is up." not in answer.read():
    sys.exit(f"the server answered {answer.status} {answer.reason}")
