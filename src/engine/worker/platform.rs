//! What a worker asks of the operating system: to die with its program, to leave no image of its
//! memory behind, and to keep stray prints out of the protocol.

pub(super) use system::{confine, end_now, take_output};

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io;

    use rustix::process::{Resource, Rlimit, Signal};

    /// As far as the system grants it; a refusal is no reason not to work.
    pub(in super::super) fn confine() {
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let _ = rustix::process::setrlimit(Resource::Core, none);
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{
                DumpableBehavior, set_dumpable_behavior, set_parent_process_death_signal,
            };
            // The signal comes when the thread that started this process ends; the program keeps
            // that thread waiting.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
    }

    /// The pipe for frames. Whatever else prints to standard output from here on goes to standard
    /// error.
    pub(in super::super) fn take_output() -> io::Result<File> {
        let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(File::from(pipe))
    }

    /// Ends the process without waiting for anything, not even for threads that compute.
    pub(in super::super) fn end_now() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    }
}

#[cfg(not(unix))]
mod system {
    use std::io::{self, Stdout};

    pub(in super::super) fn confine() {}

    pub(in super::super) fn take_output() -> io::Result<Stdout> {
        Ok(io::stdout())
    }

    pub(in super::super) fn end_now() {
        #[expect(clippy::exit, reason = "nobody waits for this process any more")]
        std::process::exit(1);
    }
}
