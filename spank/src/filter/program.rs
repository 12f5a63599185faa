//! The BPF program: a few comparisons that close the capability devices but for the open ones.
//!
//! The kernel runs it for every open(2) and mknod(2) of a device, with `struct bpf_cgroup_dev_ctx`
//! (linux/bpf.h): access type, major, minor, each 32 bits. Returning 0 refuses with EPERM.

use super::Rule;

/// An instruction as the kernel reads it (linux/bpf.h, `struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `BPF_DEVCG_DEV_CHAR` (linux/bpf.h).
const DEV_CHAR: i32 = 2;
/// The low half of the access type holds the kind of device.
const KIND_MASK: i32 = 0xffff;

// BPF_LDX | BPF_MEM | BPF_W: load 32 bits.
const LOAD: u8 = 0x61;
// BPF_ALU64 | BPF_AND | BPF_K.
const AND: u8 = 0x57;
// BPF_JMP | BPF_JNE | BPF_K and BPF_JMP | BPF_JEQ | BPF_K.
const UNLESS: u8 = 0x55;
const IF: u8 = 0x15;
// BPF_ALU64 | BPF_MOV | BPF_K.
const SET: u8 = 0xb7;
// BPF_JMP | BPF_EXIT.
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const VALUE: u8 = 2;

/// The program for a rule.
pub fn program(rule: &Rule) -> Vec<Insn> {
    let open = rule.open.len();
    // Instructions from behind the jump at `at` to the one that allows.
    let allow = |at: usize| i16::try_from(open + 8 - at - 1).unwrap_or(i16::MAX);
    let mut code = vec![
        load(0),
        Insn { code: AND, registers: VALUE, offset: 0, immediate: KIND_MASK },
        jump(UNLESS, DEV_CHAR, allow(2)),
        load(4),
        jump(UNLESS, rule.major as i32, allow(4)),
        load(8),
    ];
    for minor in &rule.open {
        code.push(jump(IF, *minor as i32, allow(code.len())));
    }
    code.extend([set(0), exit(), set(1), exit()]);
    code
}

fn load(offset: i16) -> Insn {
    Insn { code: LOAD, registers: VALUE | CONTEXT << 4, offset, immediate: 0 }
}

fn jump(code: u8, immediate: i32, offset: i16) -> Insn {
    Insn { code, registers: VALUE, offset, immediate }
}

fn set(immediate: i32) -> Insn {
    Insn { code: SET, registers: RESULT, offset: 0, immediate }
}

fn exit() -> Insn {
    Insn { code: EXIT, registers: 0, offset: 0, immediate: 0 }
}

#[cfg(test)]
mod tests {
    use super::super::rule;
    use super::*;

    const CHAR: u32 = 2;
    const BLOCK: u32 = 1;
    /// `BPF_DEVCG_ACC_MKNOD`, `_READ`, `_WRITE`, in the high half.
    const ACCESS: [u32; 4] = [1, 2, 4, 6];

    /// Runs the program in rbpf, whose verifier and interpreter know nothing of ours.
    fn allows(rule: &Rule, kind: u32, major: u32, minor: u32, access: u32) -> bool {
        let mut bytes = Vec::new();
        for insn in program(rule) {
            bytes.extend([insn.code, insn.registers]);
            bytes.extend(insn.offset.to_le_bytes());
            bytes.extend(insn.immediate.to_le_bytes());
        }
        let mut context: Vec<u8> =
            [access << 16 | kind, major, minor].iter().flat_map(|w| w.to_le_bytes()).collect();
        let vm = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap();
        vm.execute_program(&mut context).unwrap() == 1
    }

    #[test]
    fn of_the_capability_devices_only_the_open_ones_open() {
        let rule = rule(235, [12, 13, 300]);
        for access in ACCESS {
            for minor in [0, 1, 11, 12, 13, 14, 299, 300, 301, (1 << 20) - 1] {
                assert_eq!(
                    allows(&rule, CHAR, 235, minor, access),
                    [12, 13, 300].contains(&minor),
                    "{minor}"
                );
            }
        }
    }

    #[test]
    fn other_devices_are_none_of_ours() {
        let rule = rule(235, [12]);
        for minor in [0, 12, 13] {
            assert!(allows(&rule, CHAR, 195, minor, 2));
            assert!(allows(&rule, CHAR, 234, minor, 2));
            assert!(allows(&rule, CHAR, 236, minor, 2));
            assert!(allows(&rule, BLOCK, 235, minor, 2));
        }
    }

    #[test]
    fn a_task_without_leaves_opens_none() {
        let rule = rule(235, []);
        assert!((0..400).all(|minor| !allows(&rule, CHAR, 235, minor, 2)));
        assert!(allows(&rule, CHAR, 1, 3, 6));
    }

    #[test]
    fn all_leaves_of_a_large_node_fit() {
        let rule = rule(511, (0..448).map(|n| n * 9));
        assert!(program(&rule).len() < 4096, "BPF_MAXINSNS of older kernels");
        assert!((0..448 * 9).all(|minor| allows(&rule, CHAR, 511, minor, 2) == (minor % 9 == 0)));
    }
}
