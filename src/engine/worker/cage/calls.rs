//! System calls, by seccomp: a list of what is allowed on the processor, a list of what is refused
//! where a GPU computes.
//!
//! On the processor everything that runs is known (ggml, OpenMP, the C library, Rust), so a list of
//! what is allowed is short and a new call of a new kernel is refused by itself. The drivers of
//! graphics cards are closed and differ from one release to the next: there a list of what is
//! allowed would break somebody's card, and what no computation needs is refused instead.
//!
//! A refused call ends with ENOSYS, as if the kernel had never heard of it: libraries answer that
//! with an older call, where EPERM makes them give up (`clone3` in glibc).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::numbers::{
    NEVER, NEVER_OF_PROCESSOR, PLAIN, PLAIN_OF_PROCESSOR, WRITING, WRITING_OF_PROCESSOR,
};
use super::{CageInfo, Reach};

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;
type Built<T> = Result<T, seccompiler::BackendError>;

/// Numbers of the x32 ABI, which some kernels serve beside the usual one, have this bit.
const X32: c_long = 0x4000_0000;

/// Calls that have numbers of their own in the x32 ABI, programs and other processes among them.
const X32_OWN: std::ops::Range<c_long> = 512..548;

/// `PR_SET_VMA`: the C library names its memory with it.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// What a file may be asked besides: TCGETS (whether it is a terminal), FIONREAD, FIONCLEX, FIOCLEX.
const REQUESTS: [u64; 4] = [0x5401, 0x541B, 0x5450, 0x5451];

/// Whether the kernel filters system calls, or why not.
pub(super) fn offered() -> Result<(), String> {
    // The first is there from Linux 4.14 on; the second from 3.8 on, where the kernel can filter.
    let table = Path::new("/proc/sys/kernel/seccomp/actions_avail");
    let status = || fs::read_to_string("/proc/self/status").unwrap_or_default();
    if table.exists() || status().contains("\nSeccomp:") {
        Ok(())
    } else {
        Err("system calls: this kernel has no seccomp".to_owned())
    }
}

/// Restricts every thread of this process.
pub(super) fn close(reach: &Reach, info: &mut CageInfo) {
    if let Err(reason) = offered() {
        return info.lacks.push(reason);
    }
    let program = match program(reach) {
        Ok(program) => program,
        Err(error) => return info.lacks.push(format!("system calls: {error}")),
    };
    if let Err(error) = seccompiler::apply_filter_all_threads(&program) {
        return info.lacks.push(format!("system calls: seccomp: {error}"));
    }
    let holds = if reach.gpu {
        [
            "network: no sockets but local ones, which drivers use (seccomp)",
            "system calls: no programs, no other processes, no new privileges (seccomp)",
        ]
    } else {
        [
            "network: no sockets (seccomp)",
            "system calls: only those of a computation, no programs, no new machine code (seccomp)",
        ]
    };
    info.holds.extend(holds.map(str::to_owned));
}

fn program(reach: &Reach) -> Built<BpfProgram> {
    let refuse = SeccompAction::Errno(libc::ENOSYS as u32);
    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = if reach.gpu {
        SeccompFilter::new(refused_with_gpu()?, SeccompAction::Allow, refuse, processor)?
    } else {
        let rules = allowed(reach.writable.is_some())?;
        SeccompFilter::new(rules, refuse, SeccompAction::Allow, processor)?
    };
    filter.try_into()
}

/// What a computation on the processor may do.
fn allowed(writes: bool) -> Built<Rules> {
    let process = u64::from(std::process::id());
    let mut rules = Rules::new();
    for call in [PLAIN, PLAIN_OF_PROCESSOR].concat() {
        rules.insert(call, Vec::new());
    }
    // Threads of this process, no processes.
    when(
        &mut rules,
        libc::SYS_clone,
        &[(0, masked(libc::CLONE_THREAD), libc::CLONE_THREAD as u64)],
    )?;
    // Memory for data: what was written is never executed.
    when(&mut rules, libc::SYS_mmap, &[(2, masked(libc::PROT_EXEC), 0)])?;
    when(&mut rules, libc::SYS_mprotect, &[(2, masked(libc::PROT_EXEC), 0)])?;
    // Signals to itself: abort() ends this way.
    when(&mut rules, libc::SYS_kill, &[(0, Compare::Eq, process)])?;
    when(&mut rules, libc::SYS_tgkill, &[(0, Compare::Eq, process)])?;
    // Limits may be read.
    when(&mut rules, libc::SYS_prlimit64, &[(2, Compare::Eq, 0)])?;
    for option in [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_GET_DUMPABLE, PR_SET_VMA] {
        when(&mut rules, libc::SYS_prctl, &[(0, Compare::Eq, option as u64)])?;
    }
    for request in REQUESTS {
        when(&mut rules, libc::SYS_ioctl, &[(1, Compare::Eq, request)])?;
    }
    if writes {
        for call in [WRITING, WRITING_OF_PROCESSOR].concat() {
            rules.insert(call, Vec::new());
        }
    } else {
        // Also where there is no Landlock to say which files: none is opened to be written.
        let flags = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
        when(&mut rules, libc::SYS_openat, &[(2, masked(flags), 0)])?;
        #[cfg(target_arch = "x86_64")]
        when(&mut rules, libc::SYS_open, &[(1, masked(flags), 0)])?;
    }
    Ok(rules)
}

/// What nobody may do, not even the driver of a graphics card.
fn refused_with_gpu() -> Built<Rules> {
    let mut rules = Rules::new();
    for call in [NEVER, NEVER_OF_PROCESSOR].concat() {
        rules.insert(call, Vec::new());
        rules.insert(call | X32, Vec::new());
    }
    for call in X32_OWN {
        rules.insert(call | X32, Vec::new());
    }
    for form in [0, X32] {
        let local = libc::AF_UNIX as u64;
        when(&mut rules, libc::SYS_socket | form, &[(0, Compare::Ne, local)])?;
        when(&mut rules, libc::SYS_clone | form, &[(0, masked(libc::CLONE_THREAD), 0)])?;
        // No core dumps, not even for a person who may raise limits.
        let core = u64::from(libc::RLIMIT_CORE);
        when(&mut rules, libc::SYS_setrlimit | form, &[(0, Compare::Eq, core)])?;
        let change = [(1, Compare::Eq, core), (2, Compare::Ne, 0)];
        when(&mut rules, libc::SYS_prlimit64 | form, &change)?;
    }
    Ok(rules)
}

fn masked(bits: i32) -> Compare {
    Compare::MaskedEq(bits as u64)
}

/// Adds a case in which a call meets the list: each of its arguments (numbered from 0) compares to
/// the value beside it. The lower half of an argument is looked at, and for flags, processes and
/// kinds of requests the kernel reads no more; of the pointer of `prlimit64` it reads all.
fn when(rules: &mut Rules, call: c_long, cases: &[(u8, Compare, u64)]) -> Built<()> {
    let length = |argument: u8| {
        if call & !X32 == libc::SYS_prlimit64 && argument == 2 {
            Length::Qword
        } else {
            Length::Dword
        }
    };
    let conditions = cases.iter().map(|(argument, compare, value)| {
        SeccompCondition::new(*argument, length(*argument), compare.clone(), *value)
    });
    let rule = SeccompRule::new(conditions.collect::<Built<_>>()?)?;
    rules.entry(call).or_default().push(rule);
    Ok(())
}
