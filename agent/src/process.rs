//! What /proc says of processes and of the running kernel. A pid repeats; a pid with its start time does not until the next boot.

use migshare_policy::record::Holder;
use std::path::Path;

/// The process as it is known now; its start time is 0 where there is no such process.
pub fn holder(pid: u32) -> Holder {
    Holder { pid, born: born(pid).unwrap_or(0) }
}

/// Whether exactly this process runs. A zombie does not: it holds nothing any more.
pub fn is_alive(holder: Holder) -> bool {
    holder.born != 0 && born(holder.pid) == Some(holder.born)
}

/// Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)).
fn born(pid: u32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
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
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = holder(std::process::id());
        assert!(is_alive(me));
        assert!(!is_alive(Holder { born: me.born + 1, ..me }));
        assert!(!is_alive(Holder { pid: me.pid, born: 0 }));
    }
}
