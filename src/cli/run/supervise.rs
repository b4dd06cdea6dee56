//! The wait for a command, with signals passed on to it.

use std::io;
use std::mem::MaybeUninit;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};

/// The signals that are passed on; SIGCHLD is received too.
const PASSED_ON: [Signal; 6] =
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// The signals that are blocked in this process and received by [`Signals::watch`].
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks the signals in this thread and in those that it starts from now on. A process
    /// started by `std::process::Command` has them unblocked again.
    ///
    /// # Errors
    /// The error of `pthread_sigmask`, which no caller can cause.
    #[allow(unsafe_code)]
    pub fn hold() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set that the other calls then read; all pointers are to it.
        let (set, failed) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in PASSED_ON.into_iter().chain([Signal::CHILD]) {
                libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
            }
            let failed = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            (set.assume_init(), failed)
        };
        match failed {
            0 => Ok(Self(set)),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Waits for a signal to pass on. Returns `None` for one from the kernel: those of the terminal
    /// go to the whole foreground group, the command included.
    #[allow(unsafe_code)]
    fn next(&self) -> io::Result<Option<Signal>> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: both pointers are valid for the call; a zeroed siginfo_t is a valid one.
        let (number, code) = unsafe {
            let number = libc::sigwaitinfo(&raw const self.0, info.as_mut_ptr());
            (number, info.assume_init().si_code)
        };
        if number < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) };
        }
        // A positive code means that the kernel sent it (sigaction(2)).
        let passed = PASSED_ON.into_iter().find(|signal| signal.as_raw() == number && code <= 0);
        Ok(passed)
    }

    /// Waits for the end of `child`, and passes on every signal that a process sends to this one.
    ///
    /// # Errors
    /// The error of the wait.
    pub fn watch(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if let (Some(signal), Some(pid)) = (self.next()?, pid) {
                // The child may just have ended.
                let _ = kill_process(pid, signal);
            }
        }
    }
}
