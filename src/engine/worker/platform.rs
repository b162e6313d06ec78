//! What a worker asks of the operating system: to die with its program, to leave no image of its
//! memory behind, and to keep stray prints out of the protocol.

pub(super) use system::{Input, Output, confine, take_output};

/// Bytes that are taken from a pipe at once: as many as it holds on Linux.
const BUFFER_BYTES: usize = 1 << 16;

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io;

    use rustix::process::{Resource, Rlimit, Signal};

    use super::BUFFER_BYTES;

    /// The pipe for frames.
    pub(in super::super) type Output = File;

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

    /// Standard input, read as far as there is something.
    #[derive(Debug)]
    pub(in super::super) struct Input {
        buffer: Box<[u8]>,
    }

    impl Input {
        pub(in super::super) fn new() -> Self {
            Self { buffer: vec![0; BUFFER_BYTES].into_boxed_slice() }
        }

        /// What has come: None when that is nothing and nobody wants to wait, no bytes at the end.
        pub(in super::super) fn read(&mut self, wait: bool) -> io::Result<Option<&[u8]>> {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let input = rustix::stdio::stdin();
            let timeout = if wait { None } else { Some(&Timespec { tv_sec: 0, tv_nsec: 0 }) };
            let mut descriptors = [PollFd::new(&input, PollFlags::IN)];
            loop {
                match poll(&mut descriptors, timeout) {
                    Ok(0) => return Ok(None),
                    Ok(_) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let length = rustix::io::retry_on_intr(|| rustix::io::read(input, &mut *self.buffer))?;
            Ok(Some(&self.buffer[..length]))
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::io::{self, Read, Stdout};
    use std::sync::mpsc::{self, Receiver, TryRecvError};

    use super::BUFFER_BYTES;

    pub(in super::super) type Output = Stdout;

    pub(in super::super) fn confine() {}

    pub(in super::super) fn take_output() -> io::Result<Stdout> {
        Ok(io::stdout())
    }

    /// Standard input, read by a thread: there is no way to ask whether something has come.
    #[derive(Debug)]
    pub(in super::super) struct Input {
        pieces: Receiver<Vec<u8>>,
        last: Vec<u8>,
    }

    impl Input {
        pub(in super::super) fn new() -> Self {
            let (sender, pieces) = mpsc::channel();
            std::thread::spawn(move || {
                let mut buffer = vec![0; BUFFER_BYTES];
                while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
                    if sender.send(buffer[..length].to_vec()).is_err() {
                        break;
                    }
                }
            });
            Self { pieces, last: Vec::new() }
        }

        /// What has come: None when that is nothing and nobody wants to wait, no bytes at the end.
        pub(in super::super) fn read(&mut self, wait: bool) -> io::Result<Option<&[u8]>> {
            self.last.clear();
            let piece = if wait {
                self.pieces.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.pieces.try_recv()
            };
            match piece {
                Ok(piece) => self.last = piece,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => {}
            }
            Ok(Some(&self.last))
        }
    }
}
