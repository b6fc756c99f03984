"""An HTTP server on a free port of 127.0.0.1, which stands for a mirror of a data set and can misbehave."""

import contextlib
import http.server
import re
import threading


class Server:
    """Serves `contents`, bytes by name. `behave(request, number)` may answer request `number` (from 0) itself and
    return True."""

    def __init__(self, contents, behave=None):
        self.requests = []  # (name, Range header)
        self.released = threading.Event()  # what ends deliberate silence
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.name = self.path.rsplit("/", 1)[-1]
                self.content = contents.get(self.name)
                number = len(outer.requests)
                outer.requests.append((self.name, self.headers.get("Range")))
                with contextlib.suppress(ConnectionError):
                    if behave is not None and behave(self, number):
                        return
                    self.honest()

            def honest(self, keep=None):
                """What a sound server sends; only the first `keep` bytes of it, and the connection is cut."""
                if self.content is None:
                    self.send_error(404)
                    return
                asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                begin = self.begin = int(asked[1]) if asked else 0
                if begin >= len(self.content):
                    self.send_error(416)
                    return
                rest = self.content[begin:]
                if asked:
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[:keep])

            def whole(self, content, **headers):
                """Status 200 with this body, whatever range was asked for."""
                self.send_response(200)
                for name, value in {"Content_Length": len(content), **headers}.items():
                    if value is not None:
                        self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()
                self.wfile.write(content)

            def silence(self):
                outer.released.wait(100)

            def log_message(self, *args):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/sets/"
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def ranges(self, name):
        """The Range headers of the requests for one file."""
        return [asked for requested, asked in self.requests if requested == name]

    def close(self):
        self.released.set()
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join(100)
