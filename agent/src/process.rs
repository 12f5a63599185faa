//! What /proc says of processes and of the running kernel. A pid repeats; a pid with its start time does not until the next boot.

use migshare_policy::record::Holder;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// More bytes than any stat line has: a name of 64 bytes and some fifty numbers of 20 digits.
const STAT: usize = 2048;

/// The process as it is known now; its start time is 0 where there is no such process.
pub fn holder(pid: u32) -> Holder {
    Holder { pid, born: born(pid).unwrap_or(0) }
}

/// Whether exactly this process runs. A zombie does not: it holds nothing any more.
pub fn is_alive(holder: Holder) -> bool {
    holder.born != 0 && born(holder.pid) == Some(holder.born)
}

/// The parent of a process, and when the process itself was born. None where there is no such process.
pub fn parent(pid: u32) -> Option<(u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The parent is field 4, the second behind the command.
    let parent = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((parent, parse_stat(&stat)?))
}

/// Now, in the unit of start times.
pub fn ticks_since_boot() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let ticks = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec() * per_second + now.tv_nsec() * per_second / 1_000_000_000);
    u64::try_from(ticks).unwrap_or(0)
}

/// Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)).
fn born(pid: u32) -> Option<u64> {
    // The kernel gives the line in one piece, and a step's start waits for it: two system calls fewer than reading to the end.
    let mut line = [0; STAT];
    let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut line)).ok()?;
    parse_stat(&String::from_utf8_lossy(&line[..read]))
}

/// The start time in a stat line, none for a zombie. The second field is the command in parentheses and may hold anything.
fn parse_stat(stat: &str) -> Option<u64> {
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // The state is field 3, so field 22 is the 19th after it.
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

/// The kernel's boot id. A /proc of choice may have one of its own.
pub fn boot_id(proc_root: &Path) -> std::io::Result<String> {
    let name = "sys/kernel/random/boot_id";
    let own = std::fs::read_to_string(proc_root.join(name));
    let text = own.or_else(|_| std::fs::read_to_string(Path::new("/proc").join(name)))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 0 18446744073709551615";

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        assert_eq!(parse_stat(STAT), Some(98765));
        assert_eq!(parse_stat(&STAT.replace(") S ", ") Z ")), None);
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn a_child_was_born_before_now_and_names_its_parent() {
        let (parent, born) = parent(std::process::id()).unwrap();
        assert_eq!(parent, std::os::unix::process::parent_id());
        assert!(born > 0 && born <= ticks_since_boot());
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = holder(std::process::id());
        assert!(is_alive(me));
        assert!(!is_alive(Holder { born: me.born + 1, ..me }));
        assert!(!is_alive(Holder { pid: me.pid, born: 0 }));
    }
}
