"""The states of one program's part of a draft at every moment, as recorded by the program."""
import collections, math, time

from model import shortened

# A change: its begin and end, the states of paths since, and whether other states were possible
# meanwhile.
Step = collections.namedtuple("Step", "what began ended states doubtful")


TRAIL_STEPS = 6


class History:
    """The steps of a program, which follow one another."""

    def __init__(self):
        self.restart({})

    def restart(self, states):
        """Starts again, from these states of paths."""
        self.first, self.steps = dict(states), []

    def add(self, what, began, states, doubtful=False):
        """Adds a step that has just ended; `None` is the state of an absent path."""
        self.steps.append(Step(what, began, time.monotonic(), states, doubtful))

    def moments(self):
        """Yields when each state began and ended to be possible, and the states that differ from
        the one before."""
        began, states = -math.inf, {}
        for step in self.steps:
            yield began, step.ended, states
            began, states = step.began, step.states
        yield began, math.inf, states

    def contradiction(self, seen, began, ended):
        """Returns nothing if `seen` was there at one moment between the two, or else how it differs
        from the nearest state."""
        meanwhile = [step for step in self.steps if step.began <= ended and step.ended >= began]
        doubtful = {path for step in meanwhile if step.doubtful for path in step.states}
        now = dict(self.first)
        wrong = {path for path in now.keys() | seen.keys() if now.get(path) != seen.get(path)} - doubtful
        nearest = None
        for first, last, states in self.moments():
            now.update(states)
            for path in states.keys() - doubtful:
                (wrong.discard if now[path] == seen.get(path) else wrong.add)(path)
            if first <= ended and last >= began:
                if not wrong:
                    return None
                if nearest is None or len(wrong) < len(nearest):
                    nearest = {path: (now.get(path), seen.get(path)) for path in wrong}
        shown = [f"{shortened(path)}: is {found} and not {known}{self.trail(path, began)}"
                 for path, (known, found) in sorted(nearest.items())]
        return f"of {len(shown)} paths, " + "; ".join(shown[:3])

    def trail(self, path, now):
        """Returns the last steps on a path, for the reader of a finding."""
        steps = [step for step in self.steps if path in step.states][-TRAIL_STEPS:]
        told = [f"{step.began - now:+.3f} s {step.what}: {step.states[path]}" for step in steps]
        return f" ({', '.join(told)})"


class Log:
    """A file to which several writers append records of one length, each with its own numbers."""
    RECORD_BYTES = 48

    def __init__(self, name):
        self.name = name
        self.times = {}  # writer -> when each record began and ended to be written
        # A failed record may be there in part, and shifts those behind it.
        self.spoiled = False

    def record(self, writer, number):
        return f"{writer} {number:08d} ".encode().ljust(self.RECORD_BYTES - 1, b".") + b"\n"

    def contradiction(self, data, began, ended):
        """Returns how `data` differs from the log at any moment between the two, or nothing if it
        does not."""
        counts = collections.Counter()
        for at in range(0, len(data), self.RECORD_BYTES):
            record = data[at:at + self.RECORD_BYTES]
            writer = record[:1].decode(errors="replace")
            if record != self.record(writer, counts[writer]):
                return f"{self.name} has {record!r} where record {counts[writer]} of {writer} would be"
            counts[writer] += 1
        for writer, times in sorted(self.times.items()):
            least = sum(done <= began for _, done in times)
            most = sum(start <= ended for start, _ in times)
            if not least <= counts[writer] <= most:
                return f"{self.name} has {counts[writer]} records of {writer}, and not {least} to {most}"
        return None
