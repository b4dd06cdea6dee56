//! A command under watch: signals are passed on to it, until it ends.

use std::io;
use std::mem::MaybeUninit;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};

/// What is passed on; the end of a child is heard beside.
const PASSED_ON: [Signal; 6] =
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Signals that no longer end this process, but wait to be heard.
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Holds them back, in this thread and those it starts from now on. What is started by
    /// `std::process::Command` gets them again.
    ///
    /// # Errors
    /// None that a caller could cause.
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

    /// Waits for one; `None` when the kernel sent it: from the terminal it goes to the whole foreground
    /// group, the command included.
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
        // sigaction(2): a positive code is the kernel's.
        let passed = PASSED_ON.into_iter().find(|signal| signal.as_raw() == number && code <= 0);
        Ok(passed)
    }

    /// Waits for the end of `child`, which gets every signal that is sent to this process alone.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn watch(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if let (Some(signal), Some(pid)) = (self.next()?, pid) {
                // It may just have ended.
                let _ = kill_process(pid, signal);
            }
        }
    }
}
