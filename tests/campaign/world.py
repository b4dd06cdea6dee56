"""A repository on a small disk of its own, its mounts, and the commands that use them."""
import contextlib, json, os, shutil, signal, subprocess, tempfile, threading, time

from model import Model
from store import Store

DISK_BYTES = 320 << 20
# How each kind of disk is made, and mounted.
DISKS = {
    "ext4": (["mkfs.ext4", "-q", "-m", "0"], ["-o", "loop"]),
    "btrfs": (["mkfs.btrfs", "-q"], ["-o", "loop"]),
    # By default xfs gives growing files more blocks than they need, for some minutes, which cannot
    # be counted.
    "xfs": (["mkfs.xfs", "-q"], ["-o", "loop,allocsize=4k"]),
    "tmpfs": (None, ["-t", "tmpfs", "-o", f"size={DISK_BYTES}"]),
}
# The longest time of one command under all disturbances; a command that takes longer hangs.
COMMAND_SECONDS = 240


class Ran:
    """The result of a command."""

    def __init__(self, code, out, err, killed, began):
        self.code, self.out, self.err, self.killed = code, out, err, killed
        self.began, self.ended = began, time.time()

    def json(self):
        return json.loads(self.out)


class World:
    def __init__(self, campaign, number, remote, disk):
        self.campaign, self.number, self.remote, self.disk = campaign, number, remote, disk
        self.dir = tempfile.mkdtemp(prefix="campaign.", dir="/tmp")
        self.path = lambda *names: os.path.join(self.dir, *names)
        self.repo, self.mount_point, self.staging = self.path("disk/repo"), self.path("m"), self.path("s")
        for name in ("disk", "m", "s", "bind", "work", "got"):
            os.mkdir(self.path(name))
        self.make_disk()
        self.store = Store() if remote else None
        self.env = dict(os.environ, ARTIFACTFS_REPO=self.repo, ARTIFACTFS_CACHE_DIR=self.path("cache"))
        for name in ("ARTIFACTFS_RUN", "ARTIFACTFS_LOG"):
            self.env.pop(name, None)
        if remote:
            self.env.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_REGION="us-east-1",
                            AWS_ENDPOINT_URL=f"http://127.0.0.1:{self.store.port}", AWS_ALLOW_HTTP="true")
        self.model = Model(self.path("good"))
        self.windows, self.lock = [], threading.Lock()
        self.going = {}  # process group -> its command, for kills and suspensions
        self.damage = []  # objects that undo it
        self.damaged = False
        self.init()

    def make_disk(self):
        self.campaign.count(f"disk: {self.disk}")
        make, options = DISKS[self.disk]
        if make:
            with open(self.path("image"), "wb") as file:
                file.truncate(DISK_BYTES)
            host(*make, self.path("image"))
        host("mount", *options, self.path("image") if make else self.disk, self.path("disk"))

    def init(self):
        args = ["init", self.repo] + (["--store", "s3://b/x"] if self.remote else [])
        ran = self.run(args, calm=True)
        if ran.code != 0:
            raise RuntimeError(f"init: {ran.err}")

    # ---- what excuses a failure ----

    @contextlib.contextmanager
    def disturbed(self, kind):
        window = [kind, time.time(), None]
        with self.lock:
            self.windows.append(window)
        try:
            yield
        finally:
            window[2] = time.time()

    def excused(self, kinds, began, ended, slack=1.0):
        """Returns whether a disturbance of these kinds was going on."""
        with self.lock:
            return any(kind in kinds and start <= ended and (end is None or end + slack >= began)
                       for kind, start, end in self.windows)

    # ---- commands ----

    def run(self, args, calm=False, kill_after=None, container=False):
        command = [self.campaign.binary, *args]
        if container:
            command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
        began = time.time()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(command, env=self.env, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                       cwd=self.path("work"), start_new_session=True)
            if not calm:
                with self.lock:
                    self.going[process.pid] = args
            killed = False
            try:
                process.wait(COMMAND_SECONDS if kill_after is None else kill_after)
            except subprocess.TimeoutExpired:
                if kill_after is None:
                    self.campaign.find(self, f"hangs for {COMMAND_SECONDS} s: {' '.join(args)}: {where(process.pid)}")
                killed = True
                kill_group(process.pid, signal.SIGKILL)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    self.campaign.find(self, f"cannot be killed: {' '.join(args)}: {where(process.pid)}")
            finally:
                with self.lock:
                    self.going.pop(process.pid, None)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return Ran(process.returncode, *texts, killed, began)

    # ---- mounts ----

    def daemons(self):
        found = []
        folder = os.path.join(self.repo, "daemons")
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name.isdigit() and is_ours(int(name), self.repo):
                found.append(int(name))
        return found

    def mount(self):
        for point in (self.mount_point, self.staging):
            while os.path.ismount(point) and not alive(point):
                subprocess.run(["umount", "-l", point], capture_output=True)
        return self.run(["mount", self.mount_point, "--staging", self.staging], calm=True)

    def is_mounted(self):
        return all(os.path.ismount(point) and alive(point) for point in (self.mount_point, self.staging))

    # ---- the store's files ----

    def store_files(self, suffix):
        if self.remote:
            with self.store.lock:
                return sorted(key for key in self.store.objects if key.endswith(suffix))
        found = []
        for folder, _, names in os.walk(os.path.join(self.repo, "store")):
            found += [os.path.join(folder, name) for name in names if name.endswith(suffix)]
        return sorted(found)

    def store_bytes(self, suffix):
        """Returns the bytes that the files take."""
        if self.remote:
            with self.store.lock:
                return sum(len(data) for key, data in self.store.objects.items() if key.endswith(suffix))
        # btrfs and xfs count the blocks of a file only once it is written out.
        if self.disk in ("btrfs", "xfs"):
            host("sync", "--file-system", self.repo)
        return sum(os.stat(path).st_blocks * 512 for path in self.store_files(suffix))

    # ---- the end ----

    def close(self):
        for pid in processes_of(self.dir):
            signal_one(pid, signal.SIGCONT)
        if self.store:
            self.store.mode = "refuse"
        for point in (self.path("bind"), self.mount_point, self.staging):
            subprocess.run(["umount", "-l", point], capture_output=True)
        for pid in processes_of(self.dir):
            signal_one(pid, signal.SIGKILL)
        deadline = time.time() + 20
        while processes_of(self.dir) and time.time() < deadline:
            time.sleep(0.05)
        left = [f"{pid} {where(pid)}" for pid in processes_of(self.dir)]
        if left:
            self.campaign.find(self, f"processes that cannot be killed: {left}")
        if self.store:
            self.store.close()
        for _ in range(50):
            if subprocess.run(["umount", self.path("disk")], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", self.path("disk")], capture_output=True)
        if not self.campaign.keep:
            shutil.rmtree(self.dir, ignore_errors=True)


def host(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


def alive(point):
    try:
        os.statvfs(point)
        return True
    except OSError:
        return False


def signal_one(pid, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_group(pid, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def is_ours(pid, folder):
    """Returns whether a running process uses this folder; zombies use nothing."""
    text = read(f"/proc/{pid}/cmdline") + b"\0" + read(f"/proc/{pid}/environ")
    return folder.encode() in text and pid != os.getpid()


def processes_of(folder):
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and is_ours(int(name), folder)]


def where(pid):
    """Returns what a process and its threads wait in."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return "gone"
    state = read(f"/proc/{pid}/stat").rsplit(b")", 1)[-1].split()[:1]
    return f"{state} {[read(f'/proc/{pid}/task/{task}/wchan').decode() for task in tasks][:8]}"
