//! TARGET on the command line: which GPUs are to have which layout.
//!
//! ```text
//! TARGET  :=  LAYOUT                        all GPUs of the node
//!          |  gpu=N layout=LAYOUT …         these GPUs
//!          |  FILE                          one `gpu=N layout=LAYOUT` per line, '#' begins a comment
//!          |  FILE[#NAME]                   a mig-parted configuration (.yaml, .yml) and which of its configs
//! LAYOUT  :=  configured | uniform | full-memory
//!          |  2g.20gb:3,1g.10gb:1           so many of each profile, wherever they fit
//!          |  3g@4:4+1g@0:1                 slices and place of each instance
//! ```

use super::mig_parted;
use anyhow::{Context, bail};
use migshare_proto::admin::{CountWish, GpuTarget, SlotWish, Wish};
use migshare_proto::status::{GpuState, GpuStatus, Status};
use migshare_proto::{GpuUuid, Placement};
use std::path::Path;

/// What the words mean on this node.
pub(super) fn parse(words: &[String], status: &Status) -> anyhow::Result<Vec<GpuTarget>> {
    if let [word] = words
        && !word.contains('=')
    {
        return match layout(word) {
            Some(wish) => Ok(everywhere(&wish, status)),
            None => file(word, status),
        };
    }
    pairs(words.iter().map(String::as_str), status)
}

/// The GPU that a word names: an index or a UUID, with or without `gpu=`.
pub(super) fn gpu(word: &str, status: &Status) -> anyhow::Result<GpuUuid> {
    let name = word.strip_prefix("gpu=").unwrap_or(word);
    let index = name.parse::<u32>().ok();
    let named = |g: &&GpuStatus| Some(g.index) == index || g.uuid == GpuUuid::new(name);
    let found: Vec<&GpuStatus> = status.gpus.iter().filter(named).collect();
    let known = || status.gpus.iter().map(|g| g.index.to_string()).collect::<Vec<_>>().join(", ");
    match found[..] {
        [gpu] => Ok(gpu.uuid.clone()),
        [] => bail!("no gpu {name} on this node; there are {}", known()),
        // Indices move up where a GPU is gone.
        _ => {
            let uuids: Vec<String> = found.iter().map(|g| in_words(g)).collect();
            bail!("gpu {name} is {}: name it by its UUID", uuids.join(" or "))
        }
    }
}

fn in_words(gpu: &GpuStatus) -> String {
    let state = if gpu.state == GpuState::Missing { ", which is missing" } else { "" };
    format!("{}{state}", gpu.uuid)
}

/// The GPUs that "all" means: one that is gone can have no layout.
pub(super) fn all(status: &Status) -> impl Iterator<Item = &GpuStatus> {
    status.gpus.iter().filter(|gpu| gpu.state != GpuState::Missing)
}

/// A place as `start:size`, with or without `place=`.
pub(super) fn place(word: &str) -> anyhow::Result<Placement> {
    let text = word.strip_prefix("place=").unwrap_or(word);
    placement(text)
        .with_context(|| format!("\"{text}\" is no place: start:size, as `migshare status` shows it"))
}

fn everywhere(wish: &Wish, status: &Status) -> Vec<GpuTarget> {
    all(status).map(|g| GpuTarget { gpu: g.uuid.clone(), layout: wish.clone() }).collect()
}

fn pairs<'a>(words: impl Iterator<Item = &'a str>, status: &Status) -> anyhow::Result<Vec<GpuTarget>> {
    let mut targets = Vec::new();
    let mut named = None;
    for word in words {
        if word.starts_with("gpu=") {
            if named.replace(gpu(word, status)?).is_some() {
                bail!("two gpu= without a layout= between them");
            }
        } else if let Some(text) = word.strip_prefix("layout=") {
            let gpu = named.take().context("layout= comes after the gpu= that it is for")?;
            targets.push(GpuTarget { gpu, layout: layout(text).with_context(|| unknown(text))? });
        } else {
            bail!("\"{word}\" is neither gpu=N nor layout=LAYOUT");
        }
    }
    if named.is_some() {
        bail!("the last gpu= has no layout=");
    }
    Ok(targets)
}

fn file(word: &str, status: &Status) -> anyhow::Result<Vec<GpuTarget>> {
    let (path, name) = word.split_once('#').map_or((word, None), |(path, name)| (path, Some(name)));
    if !Path::new(path).exists() {
        bail!("{}, and no file of that name either", unknown(word));
    }
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    if path.ends_with(".yaml") || path.ends_with(".yml") {
        return mig_parted::targets(&text, name, status).with_context(|| path.to_owned());
    }
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    pairs(lines.flat_map(str::split_whitespace), status).with_context(|| path.to_owned())
}

fn layout(text: &str) -> Option<Wish> {
    match text {
        "configured" => Some(Wish::Configured),
        "uniform" => Some(Wish::Uniform),
        "full-memory" => Some(Wish::FullMemory),
        _ if text.contains('@') => text.split('+').map(slot).collect::<Option<_>>().map(Wish::Slots),
        _ if text.contains(':') => text.split(',').map(count).collect::<Option<_>>().map(Wish::Counts),
        _ => None,
    }
}

fn unknown(text: &str) -> String {
    format!(
        "\"{text}\" is no layout: configured, uniform, full-memory, counts (2g.20gb:3,1g.10gb:1) or places (3g@4:4+1g@0:1)"
    )
}

/// `3g@4:4`.
fn slot(text: &str) -> Option<SlotWish> {
    let (size, at) = text.split_once('@')?;
    Some(SlotWish { slices: size.strip_suffix('g')?.parse().ok()?, placement: placement(at)? })
}

/// `2g.20gb:3`.
fn count(text: &str) -> Option<CountWish> {
    let (profile, count) = text.rsplit_once(':')?;
    let named = profile.contains("g.");
    named.then_some(())?;
    Some(CountWish { profile: profile.to_owned(), count: count.parse().ok()? })
}

fn placement(text: &str) -> Option<Placement> {
    let (start, size) = text.split_once(':')?;
    Some(Placement { start: start.parse().ok()?, size: size.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_read() {
        assert_eq!(layout("uniform"), Some(Wish::Uniform));
        let counts = vec![
            CountWish { profile: "2g.20gb".to_owned(), count: 3 },
            CountWish { profile: "1g.10gb".to_owned(), count: 1 },
        ];
        assert_eq!(layout("2g.20gb:3,1g.10gb:1"), Some(Wish::Counts(counts)));
        let slot = |slices, start, size| SlotWish { slices, placement: Placement { start, size } };
        assert_eq!(layout("3g@4:4+1g@0:1"), Some(Wish::Slots(vec![slot(3, 4, 4), slot(1, 0, 1)])));
        for text in ["", "unifrom", "3g@4", "3x@4:4", "2g.20gb:x", "a:1", "@", ":"] {
            assert_eq!(layout(text), None, "{text}");
        }
    }
}
