"""An HTTP server on a free port of 127.0.0.1, which serves as a mirror of a data set and can misbehave."""

import contextlib
import http.server
import threading


class Server:
    """Serves `contents`, bytes by name. `behave(request)` answers a request in the server's place, unless it returns
    False."""

    def __init__(self, contents, behave=None):
        self.requests = []  # names
        self.released = threading.Event()  # ends deliberate silence
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.name = self.path.rsplit("/", 1)[-1]
                self.content = contents.get(self.name)
                outer.requests.append(self.name)
                with contextlib.suppress(ConnectionError):
                    if behave is not None and behave(self) is not False:
                        return
                    if self.content is None:
                        self.send_error(404)
                    else:
                        self.whole(self.content)

            def whole(self, content, keep=None, **headers):
                """Status 200 with this body; with `keep` only its first bytes, then closes the connection."""
                self.send_response(200)
                for name, value in {"Content_Length": len(content), **headers}.items():
                    if value is not None:
                        self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()
                self.wfile.write(content[:keep])

            def redirect(self, location):
                self.send_response(302)
                self.send_header("Location", location)
                self.end_headers()

            def silence(self):
                outer.released.wait(100)

            def log_message(self, *args):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/sets/"
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        if self.released.is_set():
            return
        self.released.set()
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join(100)
