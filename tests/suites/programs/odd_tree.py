"""Makes files with odd names, modes, times, owners, attributes and links below a directory."""
import os, sys
top = os.fsencode(sys.argv[1])
names = [b"plain", b"with space", b" lead and trail ", b"new\nline", b"tab\t", "žluťoučký 数据".encode(),
         b"not utf8 \xff\xfe\x80", b"x" * 255, b"-dash", b"*?[a]", b"back\\slash", b"quote'\"", b"\x01\x7f", b"...",
         b"a:b", b"#x~", b"$HOME `id`"]
for index, name in enumerate(names):
    folder = os.path.join(top, b"dir-" + name[:200])
    os.makedirs(folder)
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(os.urandom(index * 5000))
    os.chmod(path, [0o644, 0o600, 0o755, 0o444, 0o4755, 0o2750, 0o000, 0o777][index % 8])
    if index % 4 == 0:
        os.setxattr(path, b"user.note", name)
    os.utime(path, ns=(10**18 + index, [1, 10**9 - 1, 1234567890123456789, 4 * 10**18, 946684800 * 10**9][index % 5]))
    for link, target in [(b"link", name), (b"dangling", b"/nowhere/" + name)]:
        os.symlink(target, os.path.join(folder, link))
        os.utime(os.path.join(folder, link), ns=(5, 10**18 + index), follow_symlinks=False)
    os.chmod(folder, [0o755, 0o700, 0o1777, 0o2775, 0o555][index % 5])
many = os.path.join(top, b"hard")
os.makedirs(many + b"/deep/er")
for index in range(20):
    with open(many + b"/one-%d" % index, "wb") as file:
        file.write(b"%d" % index * 999)
    os.link(many + b"/one-%d" % index, many + b"/two-%d" % index)
    os.link(many + b"/one-%d" % index, many + b"/deep/er/three-%d" % index)
os.mkfifo(top + b"/fifo")
os.utime(top + b"/fifo", ns=(10**18, 10**18 + 5))
os.chown(top + b"/dir-plain/plain", 1, 2)
os.chown(top + b"/dir-plain/link", 2, 1, follow_symlinks=False)
for folder, _, _ in os.walk(top, topdown=False):
    os.utime(folder, ns=(10**18, 10**18 + 3))
