//! The cage from inside: a child of the test program closes it around itself and tries to get out.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::{CageInfo, Reach, calls, close, offered};

/// Tells the child which cage to try; absent in a usual run of the tests.
const CAGE: &str = "NFL_TEST_CAGE";
/// The directory with the things that the child tries to reach.
const YARD: &str = "NFL_TEST_YARD";
/// The port on which somebody listens.
const PORT: &str = "NFL_TEST_PORT";

/// What came of each attempt: "ok" or the error's number.
type Attempts = BTreeMap<String, Result<(), i32>>;

/// A child that tries everything, and everything to try it on.
fn attempts(cage: &str) -> Attempts {
    let yard = tempfile::tempdir().unwrap();
    let inside = |name: &str| yard.path().join(name);
    for directory in ["readable", "state", "elsewhere"] {
        fs::create_dir(inside(directory)).unwrap();
    }
    for file in ["model.gguf", "readable/adapter.gguf", "state/old", "elsewhere/secret"] {
        fs::write(inside(file), "content").unwrap();
    }
    let _local = UnixListener::bind(inside("elsewhere/socket")).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "engine::worker::cage::tests::child", "--nocapture", "--test-threads=1"])
        .env(CAGE, cage)
        .env(YARD, yard.path())
        .env(PORT, tcp.local_addr().unwrap().port().to_string())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let attempts: Attempts = told
        .lines()
        .filter_map(|line| line.split_once("attempt ")?.1.split_once(" = "))
        .map(|(name, result)| (name.to_owned(), result.parse().map_or(Ok(()), Err)))
        .collect();
    assert!(attempts.len() > 40, "{told}");
    attempts
}

/// The child's side; does nothing in a usual run of the tests.
#[test]
fn child() {
    let Ok(cage) = std::env::var(CAGE) else { return };
    let yard = PathBuf::from(std::env::var_os(YARD).unwrap());
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let reach = Reach {
        model: yard.join("model.gguf"),
        readable: vec![yard.join("readable")],
        writable: matches!(cage.as_str(), "states" | "gpu").then(|| yard.join("state")),
        gpu: cage == "gpu",
    };
    let mut info = CageInfo::default();
    if cage == "calls" {
        calls::close(&reach, &mut info);
    } else {
        info = close(&reach);
    }
    println!("{info:#?}");
    let mut told = Vec::new();
    let mut tell = |name: &str, result: io::Result<()>| {
        let result = result.map_or_else(
            |error| error.raw_os_error().unwrap_or(-1).to_string(),
            |()| "ok".to_owned(),
        );
        told.push(format!("attempt {name} = {result}"));
    };
    try_files(&yard, &mut tell);
    try_network(&yard, port, &mut tell);
    try_others(&mut tell);
    try_calls(&mut tell);
    try_work(&mut tell);
    println!("{}", told.join("\n"));
}

type Tell<'a> = &'a mut dyn FnMut(&str, io::Result<()>);

fn try_files(yard: &Path, tell: Tell<'_>) {
    let read = |path: &Path| fs::read(path).map(drop);
    let write = |path: &Path| OpenOptions::new().append(true).open(path).map(drop);
    tell("read model", read(&yard.join("model.gguf")));
    tell("read readable", read(&yard.join("readable/adapter.gguf")));
    tell("list readable", fs::read_dir(yard.join("readable")).map(drop));
    tell("read own status", read(Path::new("/proc/self/status")));
    tell("read processors", read(Path::new("/sys/devices/system/cpu/online")));
    tell("read state", read(&yard.join("state/old")));
    tell("write state", fs::write(yard.join("state/new"), "state"));
    tell("rename state", fs::rename(yard.join("state/new"), yard.join("state/newer")));
    let dated = |path: &Path| {
        File::options().append(true).open(path)?.set_modified(std::time::SystemTime::now())
    };
    tell("date state", dated(&yard.join("state/old")));
    tell("date model", dated(&yard.join("model.gguf")));
    tell("remove state", fs::remove_file(yard.join("state/newer")));

    tell("read secret", read(&yard.join("elsewhere/secret")));
    let way_round = "/proc/self/root".to_owned() + yard.to_str().unwrap() + "/elsewhere/secret";
    tell("read secret by way of /proc", read(Path::new(&way_round)));
    tell("read /etc/passwd", read(Path::new("/etc/passwd")));
    tell("list home", fs::read_dir(std::env::home_dir().unwrap()).map(drop));
    tell("list /", fs::read_dir("/").map(drop));
    tell("read another process", read(Path::new("/proc/1/cmdline")));
    tell("read the program", read(&std::env::current_exe().unwrap()));
    tell("write model", write(&yard.join("model.gguf")));
    tell("truncate model", File::create(yard.join("model.gguf")).map(drop));
    tell("remove model", fs::remove_file(yard.join("model.gguf")));
    tell("rename model", fs::rename(yard.join("model.gguf"), yard.join("state/m")));
    tell("link model", fs::hard_link(yard.join("model.gguf"), yard.join("state/m")));
    tell("write readable", write(&yard.join("readable/adapter.gguf")));
    tell("create", File::create(yard.join("elsewhere/new")).map(drop));
    tell("create in /tmp", File::create("/tmp/nfl-cage-test").map(drop));
    tell("make directory", fs::create_dir(yard.join("elsewhere/directory")));
    tell("make link", std::os::unix::fs::symlink("/etc/passwd", yard.join("state/link")));
    tell("write own memory", write(Path::new("/proc/self/mem")));
}

fn try_network(yard: &Path, port: u16, tell: Tell<'_>) {
    tell("TCP connect", TcpStream::connect(("127.0.0.1", port)).map(drop));
    tell("TCP listen", TcpListener::bind("127.0.0.1:0").map(drop));
    tell("UDP", UdpSocket::bind("127.0.0.1:0").map(drop));
    tell("UDP, IPv6", UdpSocket::bind("[::1]:0").map(drop));
    tell("local socket", UnixStream::connect(yard.join("elsewhere/socket")).map(drop));
}

fn try_others(tell: Tell<'_>) {
    use rustix::process::{Pid, Resource, Rlimit};
    tell("start a program", Command::new("/bin/true").status().map(drop));
    let parent = rustix::process::getppid().unwrap();
    tell("signal the parent", rustix::process::test_kill_process(parent).map_err(Into::into));
    let first = Pid::from_raw(1).unwrap();
    tell("signal process 1", rustix::process::test_kill_process(first).map_err(Into::into));
    let endless = Rlimit { current: None, maximum: None };
    let limit = rustix::process::setrlimit(Resource::Core, endless);
    tell("raise a limit", limit.map_err(Into::into));
}

/// Calls with arguments of which most mean nothing: whoever is refused is refused before they are
/// looked at.
#[expect(unsafe_code, reason = "no wrapper makes calls that are to be refused")]
fn try_calls(tell: Tell<'_>) {
    const PAGE: i64 = 4096;
    let executable = i64::from(libc::PROT_READ | libc::PROT_EXEC);
    let anonymous = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    for (name, call, arguments) in [
        ("ptrace", libc::SYS_ptrace, [i64::from(libc::PTRACE_ATTACH), 1, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0, 0]),
        ("setns", libc::SYS_setns, [0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0]),
        ("personality", libc::SYS_personality, [0x0040_0000, 0, 0, 0]),
        ("setuid", libc::SYS_setuid, [0, 0, 0, 0]),
        ("clone of a process", libc::SYS_clone, [i64::from(libc::SIGCHLD), 0, 0, 0]),
        ("clone3", libc::SYS_clone3, [0, 0, 0, 0]),
        ("packet socket", libc::SYS_socket, [i64::from(libc::AF_PACKET), 3, 0, 0]),
        ("netlink socket", libc::SYS_socket, [i64::from(libc::AF_NETLINK), 3, 0, 0]),
        ("mmap of code", libc::SYS_mmap, [0, PAGE, executable, anonymous]),
        ("memfd_create", libc::SYS_memfd_create, [c"memory".as_ptr() as i64, 0, 0, 0]),
    ] {
        let [a, b, c, d] = arguments;
        // SAFETY: no argument is an address that the kernel would write to, and no call that
        // succeeds (those that a GPU's cage allows) changes memory that is in use.
        let result = unsafe { libc::syscall(call, a, b, c, d, -1_i64, 0_i64) };
        let error = io::Error::last_os_error();
        assert!(call != libc::SYS_clone || result != 0, "a process was started");
        tell(name, if result < 0 { Err(error) } else { Ok(()) });
    }
}

/// What a computation does: threads, their names and places, memory of all kinds, time, chance.
fn try_work(tell: Tell<'_>) {
    let worker = || {
        let file = File::open("/proc/self/status")?;
        let mut pages = vec![0_u8; 64 << 20];
        pages.fill(1);
        let place = rustix::thread::sched_getaffinity(None)?;
        rustix::thread::sched_setaffinity(None, &place)?;
        thread::sleep(std::time::Duration::from_millis(1));
        file.metadata().map(drop)
    };
    let named = thread::Builder::new().name("computes".to_owned()).spawn(worker);
    tell("compute in a thread", named.and_then(|thread| thread.join().unwrap()));
    let other = thread::spawn(|| fs::read("/etc/passwd").map(drop)).join().unwrap();
    tell("read /etc/passwd in a thread", other);
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 1);
    tell("chance", (random != 0).then_some(()).ok_or(io::Error::other("no chance")));
}

/// What everybody can do who has nothing but a model.
const ALWAYS: &[&str] = &[
    "read model",
    "read readable",
    "list readable",
    "read own status",
    "read processors",
    "compute in a thread",
    "chance",
];

/// What a worker with a directory for its states can do with it.
const WITH_STATES: &[&str] =
    &["read state", "write state", "rename state", "date state", "remove state"];

/// What the drivers of a GPU may need, and a computation on the processor does not.
const WITH_GPU: &[&str] = &["local socket", "mmap of code", "memfd_create"];

/// What seccomp alone cannot tell from a file that may be read.
const BY_LANDLOCK: &[&str] = &[
    "list /",
    "list home",
    "read /etc/passwd",
    "read /etc/passwd in a thread",
    "read another process",
    "read secret",
    "read secret by way of /proc",
    "read state",
    "read the program",
];

/// Compares what was reached with what may be: every attempt is in the list, or refused.
fn check(cage: &str, reachable: &[&str]) {
    let offered = offered();
    let needs_landlock = cage != "calls";
    if !offered.seccomp || (needs_landlock && offered.landlock < Some(3)) {
        return eprintln!("skipped: Landlock's ABI {:?}, {:?}", offered.landlock, offered.missing);
    }
    for (name, result) in attempts(cage) {
        if reachable.contains(&name.as_str()) {
            assert_eq!(result, Ok(()), "{cage}: {name}");
        } else {
            let refusals = [libc::EACCES, libc::EPERM, libc::ENOSYS, libc::EXDEV];
            let refused = result.is_err_and(|number| refusals.contains(&number));
            assert!(refused, "{cage}: {name}: {result:?}");
        }
    }
}

#[test]
fn seccomp_alone_keeps_from_all_but_reading_files() {
    check("calls", &[ALWAYS, BY_LANDLOCK].concat());
}

#[test]
fn a_model_alone_reaches_nothing_but_its_file() {
    check("sealed", ALWAYS);
}

#[test]
fn a_directory_for_states_is_all_that_is_written() {
    check("states", &[ALWAYS, WITH_STATES].concat());
}

#[test]
fn drivers_of_a_gpu_get_what_they_need_and_no_more() {
    check("gpu", &[ALWAYS, WITH_STATES, WITH_GPU].concat());
}

#[test]
fn what_the_system_offers_is_what_it_says() {
    let offered = offered();
    assert_eq!(offered.missing.is_empty(), offered.landlock.is_some() && offered.seccomp);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(offered.seccomp, status.contains("\nSeccomp:"));
}
