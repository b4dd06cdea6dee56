#!/usr/bin/env python3
"""Serves a folder as buckets of S3 on loopback, as far as make.sh needs it.

    bucket.py FOLDER     prints its port; a key begins with the name of its bucket

While FOLDER has a file `.hang`, indexes of packs of less than 25 kB get no answer, and `.hung`
appears.
"""

import hashlib
import pathlib
import re
import sys
import threading
import urllib.parse
import xml.sax.saxutils
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(sys.argv[1])
DATE = "Wed, 01 Jan 2025 00:00:00 GMT"


def tag(body):
    return '"' + hashlib.sha256(body).hexdigest()[:16] + '"'


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def split(self):
        path, _, query = self.path.partition("?")
        key = urllib.parse.unquote(path).strip("/")
        return key, dict(urllib.parse.parse_qsl(query, keep_blank_values=True))

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        key, query = self.split()
        if "list-type" in query:
            return self.list(key, query.get("prefix", ""))
        if not (ROOT / key).is_file():
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        body = (ROOT / key).read_bytes()
        about = {"ETag": tag(body), "Last_Modified": DATE}
        if self.command == "HEAD":
            return self.answer(200, length=len(body), **about)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked:
            return self.answer(200, body, **about)
        first, last = int(asked[1]), min(int(asked[2]), len(body) - 1)
        about["Content_Range"] = f"bytes {first}-{last}/{len(body)}"
        return self.answer(206, body[first : last + 1], **about)

    do_HEAD = do_GET

    def list(self, bucket, prefix):
        out = "<ListBucketResult>"
        for path in sorted(p for p in (ROOT / bucket).rglob("*") if p.is_file()):
            key = str(path.relative_to(ROOT / bucket))
            if key.startswith(prefix):
                body = path.read_bytes()
                out += (
                    f"<Contents><Key>{xml.sax.saxutils.escape(key)}</Key><Size>{len(body)}</Size>"
                    f"<LastModified>2025-01-01T00:00:00Z</LastModified><ETag>{tag(body)}</ETag></Contents>"
                )
        self.answer(200, (out + "</ListBucketResult>").encode())

    def do_PUT(self):
        key, _ = self.split()
        body = self.body()
        hangs = key.endswith(".idx") and (ROOT / ".hang").exists()
        if hangs and (ROOT / key).with_suffix(".pack").stat().st_size < 25_000:
            (ROOT / ".hung").touch()
            threading.Event().wait()
        (ROOT / key).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / key).write_bytes(body)
        self.answer(200, ETag=tag(body))

    def do_POST(self):
        bucket, query = self.split()
        assert "delete" in query, "no upload of make.sh is long enough to come in parts"
        out = "<DeleteResult>"
        for key in re.findall(r"<Key>(.*?)</Key>", self.body().decode()):
            (ROOT / bucket / key).unlink(missing_ok=True)
            out += f"<Deleted><Key>{key}</Key></Deleted>"
        self.answer(200, (out + "</DeleteResult>").encode())

    def do_DELETE(self):
        key, _ = self.split()
        (ROOT / key).unlink(missing_ok=True)
        self.answer(204)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Says nothing: a client that was killed wants no answer."""


server = Server(("127.0.0.1", 0), Answer)
print(server.server_port, flush=True)
server.serve_forever()
