"""A small S3 in memory, on loopback, that refuses, hangs, crawls or breaks off on demand."""
import hashlib, http.server, random, threading, time, urllib.parse
from xml.sax.saxutils import escape


class Store:
    """Objects by key, and the treatment of requests: fine, refuse, error, busy, hang, slow or
    cut."""

    def __init__(self):
        self.objects, self.uploads = {}, {}
        self.lock = threading.Lock()
        self.mode = "fine"
        self.random = random.Random(0)
        store = self

        class Handler(_Handler):
            objects_of = store

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, address):
                """Ignores a client that goes away: the campaign causes that."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.mode = "refuse"
        self.server.shutdown()
        self.server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects_of = None

    def log_message(self, *words):
        """Says nothing."""

    def answer(self, status, body=b"", headers=(), slow=False):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if not slow:
            self.wfile.write(body)
            return
        for at in range(0, len(body), 4096):
            self.wfile.write(body[at:at + 4096])
            if self.objects_of.mode == "slow":
                time.sleep(0.05)

    def fail(self, status, code):
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def handle_any(self):
        store = self.objects_of
        body = self.body()
        mode = store.mode
        if mode == "hang":
            began = time.time()
            while store.mode == "hang" and time.time() < began + 60:
                time.sleep(0.05)
        if mode == "refuse" or (mode == "cut" and self.command != "GET" and store.random.random() < 0.5):
            self.close_connection = True
            return
        if mode == "error" and store.random.random() < 0.7:
            return self.fail(500, "InternalError")
        if mode == "busy" and store.random.random() < 0.7:
            return self.fail(503, "SlowDown")
        path, _, query = self.path.partition("?")
        bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
        query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        getattr(self, "on_" + self.command.lower())(store, key, query, body)

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self):
        try:
            self.handle_any()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def on_get(self, store, key, query, _body):
        if "list-type" in query:
            return self.list(store, query)
        with store.lock:
            data = store.objects.get(key)
        if data is None:
            return self.fail(404, "NoSuchKey")
        headers = [("ETag", tag(data)), ("Accept-Ranges", "bytes"), ("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")]
        asked = self.headers.get("Range")
        if asked and self.command == "GET":
            first, _, last = asked.removeprefix("bytes=").partition("-")
            if first == "":
                first, last = max(0, len(data) - int(last)), len(data) - 1
            first, last = int(first), min(int(last or len(data) - 1), len(data) - 1)
            if first > last:
                return self.fail(416, "InvalidRange")
            headers.append(("Content-Range", f"bytes {first}-{last}/{len(data)}"))
            part = data[first:last + 1]
            if store.mode == "cut":
                headers.append(("Content-Length", str(len(part))))
                self.close_connection = True
                part = part[:len(part) // 2]
            return self.answer(206, part, headers, slow=store.mode == "slow")
        headers.append(("Content-Length", str(len(data))))
        self.answer(200, data, headers, slow=store.mode == "slow")

    on_head = on_get

    def list(self, store, query):
        prefix, after = query.get("prefix", ""), query.get("continuation-token") or query.get("start-after", "")
        most, slash = int(query.get("max-keys", 1000)), query.get("delimiter", "")
        with store.lock:
            keys = sorted(key for key in store.objects if key.startswith(prefix) and key > after)
            sizes = {key: (len(store.objects[key]), tag(store.objects[key])) for key in keys}
        items, folders, last, more = [], set(), "", False
        for key in keys:
            if len(items) + len(folders) >= most:
                more = True
                break
            rest = key[len(prefix):]
            if slash and slash in rest:
                folders.add(prefix + rest.split(slash)[0] + slash)
            else:
                size, etag = sizes[key]
                items.append(f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>{escape(etag)}</ETag>"
                             "<LastModified>2025-01-01T00:00:00.000Z</LastModified></Contents>")
            last = key
        text = "".join(items) + "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in sorted(folders))
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        body = (f"<ListBucketResult><Name>b</Name><KeyCount>{len(items)}</KeyCount>"
                f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{text}</ListBucketResult>")
        self.answer(200, body.encode(), [("Content-Type", "application/xml")])

    def on_put(self, store, key, query, body):
        with store.lock:
            if "uploadId" in query:
                upload = store.uploads.get(query["uploadId"])
                if upload is None:
                    return self.fail(404, "NoSuchUpload")
                upload[int(query["partNumber"])] = body
            elif self.headers.get("If-None-Match") == "*" and key in store.objects:
                return self.fail(412, "PreconditionFailed")
            else:
                store.objects[key] = body
        self.answer(200, b"", [("ETag", tag(body))])

    def on_post(self, store, key, query, body):
        if "uploads" in query:
            upload = f"{store.random.getrandbits(64):x}"
            with store.lock:
                store.uploads[upload] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return self.answer(200, text.encode())
        if "uploadId" in query:
            with store.lock:
                parts = store.uploads.pop(query["uploadId"], None)
                if parts is None:
                    return self.fail(404, "NoSuchUpload")
                data = b"".join(parts[number] for number in sorted(parts))
                store.objects[key] = data
            text = f"<CompleteMultipartUploadResult><ETag>{escape(tag(data))}</ETag></CompleteMultipartUploadResult>"
            return self.answer(200, text.encode())
        if "delete" in query:
            import re
            from xml.sax.saxutils import unescape
            keys = [unescape(found) for found in re.findall(r"<Key>(.*?)</Key>", body.decode(), re.S)]
            with store.lock:
                for found in keys:
                    store.objects.pop(found, None)
            done = "".join(f"<Deleted><Key>{escape(found)}</Key></Deleted>" for found in keys)
            return self.answer(200, f"<DeleteResult>{done}</DeleteResult>".encode())
        self.fail(501, "NotImplemented")

    def on_delete(self, store, key, query, _body):
        with store.lock:
            if "uploadId" in query:
                store.uploads.pop(query["uploadId"], None)
            else:
                store.objects.pop(key, None)
        self.answer(204)


def tag(data):
    return '"' + hashlib.md5(data).hexdigest() + '"'
