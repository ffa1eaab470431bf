"""One server of the two: requests over a kept connection, answers as they came."""

import http.client
import json
import ssl


class Answer:
    """Status, headers (lower case, in order) and body (bytes) of an answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, [(k.lower(), v) for k, v in headers], body

    def header(self, name):
        return next((v for k, v in self.headers if k == name), None)

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Server:
    """A server at `port` of this machine, asked as the administrator of the certificates in `folder`."""

    def __init__(self, name, port, folder):
        self.name, self.port = name, port
        self.context = ssl.create_default_context(cafile=folder / "ca.crt")
        self.context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self.connection = None

    def ask(self, method, path, headers, body):
        """Sends a request; a connection that was closed meanwhile is opened anew, once."""
        for attempt in (0, 1):
            if self.connection is None:
                self.connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=40, context=self.context)
            try:
                self.connection.putrequest(method, path, skip_accept_encoding=True)
                for key, value in headers.items():
                    self.connection.putheader(key, value)
                if body is not None:
                    self.connection.putheader("Content-Length", str(len(body)))
                self.connection.endheaders(body)
                response = self.connection.getresponse()
                return Answer(response.status, response.getheaders(), response.read())
            except (http.client.HTTPException, OSError) as error:
                self.connection.close()
                self.connection = None
                if attempt:
                    return Answer(0, [], f"no answer: {type(error).__name__}".encode())
