//! From a profile to BPF.
//!
//! The program finds the call's number by a binary search over ranges that share an outcome: the kernel runs it once for
//! every number when it is installed (to remember what is always allowed), so its depth is what a container start pays.

use std::collections::BTreeMap;

use super::{
    Error,
    profile::{Action, Condition, Operator, Profile},
};

#[cfg(target_arch = "x86_64")]
const TABLE: &str = include_str!("x86_64.txt");
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const TABLE: &str = include_str!("aarch64.txt");
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;
/// `offsetof(struct seccomp_data, …)`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;
/// The kernel takes no longer programs.
const MAX_LENGTH: usize = 4096;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

impl Instruction {
    /// As the kernel has it in memory, little endian.
    pub fn bytes(&self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.code.to_le_bytes(), self.k.to_le_bytes());
        [a, b, self.jt, self.jf, c, d, e, f]
    }
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// What is returned to the kernel.
fn outcome(action: Action, errno: Option<u16>) -> u32 {
    let data = u32::from(errno.unwrap_or(libc::EPERM as u16));
    match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno => libc::SECCOMP_RET_ERRNO | data,
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::Trace => libc::SECCOMP_RET_TRACE | data,
        Action::Log => libc::SECCOMP_RET_LOG,
    }
}

/// What happens at a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Always(u32),
    /// The first alternative whose conditions all hold, else the last value.
    When(Vec<(Vec<Condition>, u32)>, u32),
}

/// Compiles a profile for a process with these capabilities.
pub fn compile(profile: &Profile, capabilities: u64) -> Result<Vec<Instruction>, Error> {
    let numbers: BTreeMap<&str, u32> = TABLE
        .lines()
        .filter_map(|l| l.split_once(' ').and_then(|(name, number)| Some((name, number.parse().ok()?))))
        .collect();
    let default = outcome(profile.default_action, profile.default_errno_ret);
    let mut calls: BTreeMap<u32, Body> = BTreeMap::new();
    for rule in profile.syscalls.iter().filter(|r| r.holds(capabilities)) {
        let value = outcome(rule.action, rule.errno_ret);
        for number in rule.names.iter().filter_map(|n| numbers.get(n.as_str())) {
            let conditions = rule.args.clone().unwrap_or_default();
            let body = calls.entry(*number).or_insert_with(|| Body::When(vec![], default));
            match (&mut *body, conditions.is_empty()) {
                // the first unconditional rule is the last word
                (Body::Always(_), _) => {}
                (Body::When(..), true) => *body = Body::Always(value),
                (Body::When(list, _), false) => list.push((conditions, value)),
            }
        }
    }
    let newest = numbers.values().copied().max().unwrap_or(0);
    // What came after this table is unknown, not forbidden: programs then fall back (as runc's filters do).
    let unknown = match profile.default_action {
        Action::Errno => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        _ => default,
    };
    let mut segments: Vec<(u32, Body)> = Vec::new();
    for number in 0..=newest {
        let body = calls.get(&number).cloned().unwrap_or(Body::Always(default));
        if segments.last().is_none_or(|(_, last)| *last != body) {
            segments.push((number, body));
        }
    }
    segments.push((newest + 1, Body::Always(unknown)));
    // x32's numbers begin there; on other machines nothing does
    if unknown == libc::SECCOMP_RET_ALLOW {
        segments.push((0x4000_0000, Body::Always(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)));
    }
    let mut program = vec![
        plain(LD_ABS, ARCH),
        jump(JEQ, AUDIT_ARCH, 1, 0),
        // calls of another architecture have other numbers: none is let through
        plain(RET, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        plain(LD_ABS, NR),
    ];
    program.extend(search(&segments));
    if program.len() > MAX_LENGTH {
        return Err(Error::Invalid(format!(
            "it needs {} instructions, the kernel takes {MAX_LENGTH}",
            program.len()
        )));
    }
    Ok(program)
}

fn search(segments: &[(u32, Body)]) -> Vec<Instruction> {
    match segments {
        [] => Vec::new(),
        [(_, body)] => emit(body),
        segments => {
            let (low, high) = segments.split_at(segments.len() / 2);
            let (low, first) = (search(low), high.first().map_or(0, |(number, _)| *number));
            // conditional jumps reach 255 instructions, this one any number
            let mut code = vec![jump(JGE, first, 0, 1), plain(JA, low.len() as u32)];
            code.extend(low);
            code.extend(search(high));
            code
        }
    }
}

fn emit(body: &Body) -> Vec<Instruction> {
    match body {
        Body::Always(value) => vec![plain(RET, *value)],
        Body::When(alternatives, last) => {
            let mut code = Vec::new();
            for (conditions, value) in alternatives {
                let mut rest = vec![plain(RET, *value)];
                for condition in conditions.iter().rev() {
                    let mut test = check(condition, rest.len() as u8);
                    test.append(&mut rest);
                    rest = test;
                }
                code.append(&mut rest);
            }
            code.push(plain(RET, *last));
            code
        }
    }
}

/// Falls through if the condition holds, else skips `skip` instructions more.
fn check(c: &Condition, skip: u8) -> Vec<Instruction> {
    let at = ARGS + 8 * u32::from(c.index);
    let (low, high) = (plain(LD_ABS, at), plain(LD_ABS, at + 4));
    let halves = |v: u64| ((v >> 32) as u32, v as u32);
    let (vh, vl) = halves(c.value);
    match c.op {
        Operator::Equal => vec![high, jump(JEQ, vh, 0, 2 + skip), low, jump(JEQ, vl, 0, skip)],
        Operator::NotEqual => vec![high, jump(JEQ, vh, 0, 2), low, jump(JEQ, vl, skip, 0)],
        Operator::MaskedEqual => {
            let (wh, wl) = halves(c.value_two);
            vec![
                high,
                plain(AND, vh),
                jump(JEQ, wh, 0, 3 + skip),
                low,
                plain(AND, vl),
                jump(JEQ, wl, 0, skip),
            ]
        }
        Operator::Greater => {
            vec![high, jump(JGT, vh, 3, 0), jump(JEQ, vh, 0, 2 + skip), low, jump(JGT, vl, 0, skip)]
        }
        Operator::GreaterOrEqual => {
            vec![high, jump(JGT, vh, 3, 0), jump(JEQ, vh, 0, 2 + skip), low, jump(JGE, vl, 0, skip)]
        }
        Operator::LessOrEqual => {
            vec![high, jump(JGT, vh, 3 + skip, 0), jump(JEQ, vh, 0, 2), low, jump(JGT, vl, skip, 0)]
        }
        Operator::Less => {
            vec![high, jump(JGT, vh, 3 + skip, 0), jump(JEQ, vh, 0, 2), low, jump(JGE, vl, skip, 0)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(nr.to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend([0; 8]);
        args.iter().for_each(|a| data.extend(a.to_le_bytes()));
        let (mut at, mut a) = (0usize, 0u32);
        loop {
            let i = program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
            match i.code {
                LD_ABS => {
                    let k = i.k as usize;
                    a = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                }
                AND => a &= i.k,
                JA => at += i.k as usize,
                JEQ => at += jump(a == i.k),
                JGT => at += jump(a > i.k),
                JGE => at += jump(a >= i.k),
                RET => return i.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    fn standard(capabilities: u64) -> Vec<Instruction> {
        compile(&Profile::parse(include_str!("default.json")).unwrap(), capabilities).unwrap()
    }

    fn call(program: &[Instruction], nr: i64, args: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        run(program, AUDIT_ARCH, nr as u32, all)
    }

    #[test]
    fn the_default_profile_is_docker_s() {
        let program = standard(crate::capability::default_set());
        assert_eq!(call(&program, libc::SYS_read, &[]), ALLOW);
        assert_eq!(call(&program, libc::SYS_execve, &[]), ALLOW);
        assert_eq!(call(&program, libc::SYS_chroot, &[]), ALLOW);
        assert_eq!(call(&program, libc::SYS_mount, &[]), EPERM);
        assert_eq!(call(&program, libc::SYS_unshare, &[]), EPERM);
        assert_eq!(call(&program, libc::SYS_keyctl, &[]), EPERM);
        assert_eq!(call(&program, libc::SYS_io_uring_setup, &[]), EPERM);
        // threads, but no namespaces
        assert_eq!(call(&program, libc::SYS_clone, &[libc::CLONE_VM as u64]), ALLOW);
        assert_eq!(call(&program, libc::SYS_clone, &[libc::CLONE_NEWUSER as u64]), EPERM);
        assert_eq!(call(&program, libc::SYS_clone3, &[]), ENOSYS);
        assert_eq!(call(&program, libc::SYS_socket, &[libc::AF_INET as u64]), ALLOW);
        assert_eq!(call(&program, libc::SYS_socket, &[libc::AF_VSOCK as u64]), EPERM);
        assert_eq!(call(&program, libc::SYS_personality, &[8]), ALLOW);
        assert_eq!(call(&program, libc::SYS_personality, &[1]), EPERM);
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let program = standard(crate::capability::bit("SYS_ADMIN").unwrap());
        assert_eq!(call(&program, libc::SYS_mount, &[]), ALLOW);
        assert_eq!(call(&program, libc::SYS_clone, &[libc::CLONE_NEWUSER as u64]), ALLOW);
        assert_eq!(call(&program, libc::SYS_clone3, &[]), ALLOW);
        assert_eq!(call(&program, libc::SYS_chroot, &[]), EPERM);
    }

    #[test]
    fn other_architectures_and_unknown_calls_do_not_exist() {
        let program = standard(0);
        assert_eq!(run(&program, 0x4000_0003, 3, [0; 6]), ENOSYS);
        assert_eq!(call(&program, 0x4000_0000, &[]), ENOSYS);
        assert_eq!(call(&program, 5000, &[]), ENOSYS);
    }

    #[test]
    fn comparisons_are_of_64_bits() {
        let ops = [
            ("SCMP_CMP_EQ", (|a, b| a == b) as fn(u64, u64) -> bool),
            ("SCMP_CMP_NE", |a, b| a != b),
            ("SCMP_CMP_LT", |a, b| a < b),
            ("SCMP_CMP_LE", |a, b| a <= b),
            ("SCMP_CMP_GT", |a, b| a > b),
            ("SCMP_CMP_GE", |a, b| a >= b),
        ];
        let values = [0, 1, 7, u64::from(u32::MAX), 1 << 32, (1 << 32) + 7, (7 << 32) + 1, u64::MAX];
        for (op, holds) in ops {
            for b in values {
                let text = format!(
                    r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":1,"value":{b},"op":"{op}"}},{{"index":2,"value":5,"op":"SCMP_CMP_EQ"}}]}}]}}"#
                );
                let program = compile(&Profile::parse(&text).unwrap(), 0).unwrap();
                for a in values {
                    let expected = if holds(a, b) { ALLOW } else { EPERM };
                    assert_eq!(call(&program, libc::SYS_read, &[0, a, 5]), expected, "{a} {op} {b}");
                    assert_eq!(call(&program, libc::SYS_read, &[0, a, 4]), EPERM);
                }
            }
        }
    }

    #[test]
    fn a_profile_that_says_nothing_is_refused() {
        for text in ["", "{}", "[]", r#"{"syscalls":[]}"#, r#"{"defaultAction":"SCMP_ACT_WHATEVER"}"#] {
            assert!(Profile::parse(text).is_err(), "{text}");
        }
    }
}
